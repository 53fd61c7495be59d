// Every word of the page, in English. `zh.ts` has the same keys, or the type check fails.

import { accessEn } from './access.en';
import { chatEn } from './chat.en';

export const en = {
  language: {
    name: 'English',
    other: '中文',
    switch: '切换到中文',
  },

  units: { seconds: 's', minutes: 'min', hours: 'h' },

  phase: {
    starting: { title: 'Starting', text: 'The service is up; the memory of this machine is measured next.' },
    planning: {
      title: 'Measuring memory and choosing a precision',
      text: 'The model’s file headers are compared with the memory that is free here. No weights are read yet.',
    },
    downloading: {
      title: 'Downloading the model',
      text: 'The weights are fetched once and kept. An interrupted download goes on where it stopped.',
    },
    loading: { title: 'Loading the model', text: 'The weights go into memory. The chat opens by itself when they are in.' },
    proving: {
      title: 'Testing the worst case',
      text: 'The longest request that is allowed runs once now, so that memory cannot run out later.',
    },
    ready: { title: 'Ready', text: 'The model is loaded and answers.' },
    recovering: { title: 'Coming back', text: 'The model process ended. It is started again by itself; there is nothing to do.' },
    failed: { title: 'The model could not be started', text: 'The cause, and what to change, is below.' },
    stopping: { title: 'Shutting down', text: 'The service is being stopped.' },
  },

  steps: {
    label: 'Steps until the chat opens',
    measure: 'Measure',
    plan: 'Plan',
    download: 'Download',
    load: 'Load',
    prove: 'Test',
    chat: 'Chat',
    done: 'done',
    current: 'now',
    ahead: 'to come',
  },

  progress: {
    label: 'Progress',
    amount: (done: string, total: string) => `${done} of ${total}`,
    rate: (rate: string) => `${rate}/s`,
    left: (time: string) => `about ${time} left`,
    almost: 'almost done',
    preparing: 'The model process is starting; the bytes are counted as soon as it reads the weights.',
    elapsed: (time: string) => `${time} in this step`,
    total: (time: string) => `${time} since the start`,
  },

  away: {
    connecting: 'Connecting…',
    lost: 'No connection to the service. Trying again every second.',
  },

  model: {
    label: 'Model',
    parameters: (count: string) => `${count} parameters`,
    stored: (size: string, dtype: string) => `${size} stored as ${dtype}`,
    context: (tokens: string) => `context up to ${tokens} tokens`,
  },

  measured: {
    label: 'What was measured',
    memory: 'Memory',
    freeOf: (free: string, total: string) => `${free} free of ${total}`,
    limit: (limit: string) => `container limit ${limit}`,
    held: (held: string) => `${held} of it held by a running Berth`,
    processor: 'Processor',
    cores: (count: number) => `${count} ${count === 1 ? 'core' : 'cores'}`,
    gpu: (indices: number | string) => `GPU ${indices}`,
    noGpu: 'GPU',
    none: 'none seen',
    unknown: 'memory not reported by the driver',
    disk: 'Disk',
    free: (size: string) => `${size} free`,
  },

  plan: {
    title: 'The plan',
    chosenTitle: (precision: string, place: string) => `${precision} on ${place === 'CPU' ? 'the CPU' : place}`,
    why: 'Why this precision',
    refused: 'No precision could be chosen',
    serves: (context: string, slots: number) =>
      `${context} tokens of context, ${slots === 1 ? 'one request at a time' : `up to ${slots} requests at once`}`,
    caption: 'Every precision that was considered: what it needs against what is free',
    precision: 'Precision',
    memory: 'Memory needed, up to what is free',
    need: 'Needs',
    free: 'Free',
    result: 'Result',
    freeMark: 'Free memory',
    legend: 'Parts of the bars',
    lacks: (size: string) => `${size} short`,
    layers: (first: number, last: number) => (first === last ? `layer ${first}` : `layers ${first}–${last}`),
    noLayer: 'no layer',
    used: (need: string, free: string) => `${need} of ${free}`,
    placements: 'Which layers lie where',
    verdict: {
      chosen: 'Chosen',
      fits: 'Also fits',
      too_large: 'Too large',
      unsupported: 'Not supported',
      excluded: 'Excluded',
    },
    part: {
      weights: 'Weights',
      cache: 'Cache for the conversation',
      activations: 'Working memory',
      overhead: 'Loading, runtime and margin',
    },
    origins: 'Every setting, and where it comes from',
    setting: 'Setting',
    value: 'Value',
    why_column: 'Why',
    origin: { set: 'set by you', measured: 'measured', default: 'default', stepped_down: 'stepped down' },
    proof: (measured: string, planned: string) => `Measured at the longest request: ${measured}; planned: ${planned}.`,
    none: 'The plan appears here as soon as the memory is measured.',
  },

  refusal: {
    envLabel: 'Put this line into .env, then start again',
    copyLine: 'Copy the line',
  },

  death: {
    title: 'What happened',
    past: 'Last interruption',
    cause: 'Cause',
    causes: {
      out_of_memory: 'Out of memory',
      killed_by_kernel_oom: 'Killed by the kernel: out of memory',
      killed_by_signal: 'Killed by a signal',
      bad_checkpoint: 'The model’s files cannot be used',
      self_test: 'The self-test after loading failed',
      gpu_lost: 'The GPU was lost',
      no_cuda: 'PyTorch cannot use the GPU',
      hung: 'The engine hung',
      crashed: 'The process crashed',
    },
    signal: (number: number) => `by signal ${number}`,
    exit: (code: number) => `with exit code ${code}`,
    at: 'When',
    limit: 'Memory limit',
    peak: 'Highest use',
    count: 'Interruptions so far',
    back: 'It comes back by itself. Your conversation stays here.',
  },

  ...accessEn,
  ...chatEn,

  banner: { details: 'Details' },

  footer: {
    label: 'State of the service',
    precision: (precision: string) => `${precision} precision`,
    plan: 'Plan and memory',
    context: (tokens: string) => `${tokens} tokens context`,
    version: (version: string) => `Berth ${version}`,
  },

  dialog: { close: 'Close' },
};

/** The shape of `en` with any words: strings stay strings, functions keep their arguments. */
export type Words = Widen<typeof en>;

export type Widen<T> = {
  readonly [K in keyof T]: T[K] extends string
    ? string
    : T[K] extends string[]
      ? readonly string[]
      : T[K] extends (...args: never[]) => string
        ? T[K]
        : Widen<T[K]>;
};
