// All texts of the page, in English. `zh.ts` has the same keys; the type check fails otherwise.

import { accessEn } from './access.en';
import { chatEn } from './chat.en';
import { errorsEn } from './errors.en';

export const en = {
  language: {
    name: 'English',
    other: '中文',
    switch: '切换到中文',
  },

  /** Two sentences in a row. */
  sentences: (first: string, second: string) => `${first} ${second}`,

  units: { seconds: 's', minutes: 'min', hours: 'h' },

  phase: {
    starting: { title: 'Starting', text: 'The service is running. Next, it measures the memory of this machine.' },
    planning: {
      title: 'Measuring memory and choosing a precision',
      text: 'The headers of the model’s files are compared with the free memory. No weights are read yet.',
    },
    downloading: {
      title: 'Downloading the model',
      text: 'The weights are downloaded once and kept. An interrupted download resumes where it stopped.',
    },
    loading: {
      title: 'Loading the model',
      text: 'The chat opens by itself when the model is ready.',
    },
    proving: {
      title: 'Final memory check',
      text: 'The longest allowed request runs once, to make sure that memory does not run out later.',
    },
    ready: { title: 'Ready', text: 'The model is loaded.' },
    recovering: {
      title: 'Restarting the model',
      text: 'The model process ended. It is restarted automatically; you need not do anything.',
    },
    failed: { title: 'The model could not be started', text: 'The cause and what to change are below.' },
    stopping: { title: 'Shutting down', text: 'The service is being stopped.' },
  },

  loadStage: {
    starting_process: 'The model process is starting and loads PyTorch. It has not read any weights yet.',
    reading: 'The weights are being read into memory. The chat opens by itself when the model is ready.',
    preparing: 'All weights are read. They are arranged for this device, and the KV cache is allocated.',
  },

  steps: {
    label: 'Steps until the chat opens',
    measure: 'Measure',
    plan: 'Plan',
    download: 'Download',
    load: 'Load',
    prove: 'Check',
    chat: 'Chat',
    done: 'done',
    current: 'now',
    ahead: 'not started',
  },

  progress: {
    label: 'Progress',
    amount: (done: string, total: string) => `${done} of ${total}`,
    step: (step: string, total: string) => `Step ${step} of ${total}`,
    rate: (rate: string) => `${rate}/s`,
    left: (time: string) => `about ${time} left`,
    almost: 'almost done',
    elapsed: (time: string) => `${time} so far`,
    total: (time: string) => `${time} since the start`,
  },

  connection: {
    connecting: 'Connecting…',
    lost: 'The service cannot be reached. The page tries again every second.',
  },

  model: {
    label: 'Model',
    parameters: (count: string) => `${count} parameters`,
    stored: (size: string, dtype: string) => `${size} of files (${dtype})`,
    context: (tokens: string) => `context up to ${tokens} tokens`,
  },

  measured: {
    label: 'Measurements',
    memory: 'Memory',
    freeOf: (free: string, total: string) => `${free} free of ${total}`,
    limit: (limit: string) => `container limit ${limit}`,
    held: (held: string) => `${held} of it used by a Berth that is running`,
    processor: 'Processor',
    cores: (count: number) => `${count} ${count === 1 ? 'core' : 'cores'}`,
    gpu: (indices: number | string) => `GPU ${indices}`,
    noGpu: 'GPU',
    none: 'none found',
    unknown: 'memory not reported by the driver',
    reads: (rate: string) => `reads memory at ${rate} GB/s`,
    disk: 'Disk',
    free: (size: string) => `${size} free`,
  },

  plan: {
    title: 'Plan',
    chosenTitle: (precision: string, place: string) => `${precision} on ${place === 'CPU' ? 'the CPU' : place}`,
    why: 'Why this precision',
    refused: 'No precision fits',
    refusedSettings: 'No precision fits with your settings',
    serves: (context: string, slots: number) =>
      `${context} tokens of context, ${slots === 1 ? 'one request at a time' : `up to ${slots} requests at once`}`,
    slotCost: (size: string) => `The cache takes ${size} for each request.`,
    expected: (speed: string) => `About ${speed} tokens a second for one request, estimated from the memory’s speed.`,
    reached: (speed: string) => `${speed} tokens a second for one request, reached here before.`,
    expectedShort: (speed: string) => `about ${speed} tokens/s, estimated`,
    reachedShort: (speed: string) => `${speed} tokens/s reached here`,
    caption: 'All precisions that were considered: memory needed and memory free',
    precision: 'Precision',
    memory: 'Memory: needed / free',
    need: 'Needs',
    free: 'Free',
    result: 'Result',
    freeMark: 'Free memory',
    legend: 'Parts of the bars',
    lacks: (size: string) => `${size} short`,
    layers: (first: number, last: number) => (first === last ? `layer ${first}` : `layers ${first}–${last}`),
    noLayer: 'no layers',
    used: (need: string, free: string) => `${need} of ${free}`,
    placements: 'Layers on each device',
    verdict: {
      chosen: 'Chosen',
      fits: 'Also fits',
      too_large: 'Too large',
      unsupported: 'Not supported',
      excluded: 'Excluded',
    },
    part: {
      weights: 'Weights',
      cache: 'KV cache',
      activations: 'Activations',
      overhead: 'Loading, runtime and margin',
    },
    origins: 'All settings and where they come from',
    origin: { set: 'set by you', measured: 'measured', default: 'default', stepped_down: 'reduced' },
    proof: (measured: string, planned: string) => `Longest request: measured ${measured}, planned ${planned}.`,
  },

  refusal: {
    envLabel: 'Add this line to .env, then run “docker compose up -d” (or “make run”)',
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
      hung: 'The model process hung',
      crashed: 'The model process crashed',
    },
    signal: (number: number) => `by signal ${number}`,
    exit: (code: number) => `with exit code ${code}`,
    at: 'When',
    limit: 'Memory limit',
    peak: 'Highest memory use',
    count: 'Interruptions so far',
    back: 'The model is restarted automatically. Your conversation is kept.',
  },

  ...accessEn,
  ...chatEn,
  ...errorsEn,

  banner: { details: 'Details' },

  footer: {
    label: 'Service status',
    precision: (precision: string) => `${precision} precision`,
    plan: 'Plan and memory',
    context: (tokens: string) => `context of ${tokens} tokens`,
    version: (version: string) => `Berth ${version}`,
  },

  dialog: { close: 'Close' },
};

/** The shape of `en` with other texts: strings stay strings, functions keep their arguments. */
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
