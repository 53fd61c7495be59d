import { accessZh } from './access.zh';
import { chatZh } from './chat.zh';
import type { Words } from './en';
import { errorsZh } from './errors.zh';

export const zh: Words = {
  language: {
    name: '中文',
    other: 'English',
    switch: 'Switch to English',
  },

  sentences: (first, second) => `${first}${second}`,

  units: { seconds: '秒', minutes: '分', hours: '小时' },

  phase: {
    starting: { title: '正在启动', text: '服务已经运行，接下来测量这台机器的内存和显存。' },
    planning: { title: '正在测量内存并选择精度', text: '正在比较模型文件头与可用内存（显存），此时还没有读取权重。' },
    downloading: { title: '正在下载模型', text: '权重只需下载一次，之后会保留。中断后会从断点继续。' },
    loading: { title: '正在加载模型', text: '模型就绪后，对话会自动打开。' },
    proving: { title: '正在做满载自检', text: '用允许的最长请求试跑一次，确认之后内存（显存）不会用尽。' },
    ready: { title: '已就绪', text: '模型已加载。' },
    recovering: { title: '正在重新启动模型', text: '模型进程已退出，正在自动重新启动，无需任何操作。' },
    failed: { title: '模型无法启动', text: '原因和需要修改的内容见下方。' },
    stopping: { title: '正在关闭', text: '服务正在停止。' },
  },

  loadStage: {
    starting_process: '模型进程正在启动并加载 PyTorch，还没有开始读取权重。',
    reading: '正在把模型权重读入内存（显存）。模型就绪后，对话会自动打开。',
    preparing: '权重已全部读完，正在针对当前设备整理权重，并分配 KV 缓存。',
  },

  steps: {
    label: '打开对话之前的步骤',
    measure: '测量',
    plan: '规划',
    download: '下载',
    load: '加载',
    prove: '自检',
    chat: '对话',
    done: '已完成',
    current: '进行中',
    ahead: '未开始',
  },

  progress: {
    label: '进度',
    amount: (done, total) => `${done} / ${total}`,
    step: (step, total) => `第 ${step} 步，共 ${total} 步`,
    rate: (rate) => `${rate}/秒`,
    left: (time) => `大约还需 ${time}`,
    almost: '即将完成',
    elapsed: (time) => `此阶段已用 ${time}`,
    total: (time) => `启动至今 ${time}`,
  },

  connection: {
    connecting: '正在连接…',
    lost: '无法连接到服务，每秒重试一次。',
  },

  model: {
    label: '模型',
    parameters: (count) => `参数量 ${count}`,
    stored: (size, dtype) => `文件 ${size}（${dtype}）`,
    context: (tokens) => `上下文最长 ${tokens} 个 token`,
  },

  measured: {
    label: '测量结果',
    memory: '内存',
    freeOf: (free, total) => `共 ${total}，可用 ${free}`,
    limit: (limit) => `容器上限 ${limit}`,
    held: (held) => `其中 ${held} 由正在运行的 Berth 占用`,
    processor: '处理器',
    cores: (count) => `${count} 核`,
    gpu: (indices) => `显卡 ${indices}`,
    noGpu: '显卡',
    none: '未发现',
    unknown: '驱动没有报告显存',
    reads: (rate) => `读取带宽 ${rate} GB/s`,
    disk: '磁盘',
    free: (size) => `可用 ${size}`,
  },

  plan: {
    title: '方案',
    chosenTitle: (precision, place) => `${precision}（${place}）`,
    why: '为什么选择这个精度',
    refused: '没有一种精度放得下',
    refusedSettings: '按你的设置，没有一种精度放得下',
    serves: (context, slots) =>
      `上下文 ${context} 个 token，${slots === 1 ? '一次处理一个请求' : `可同时处理 ${slots} 个请求`}`,
    slotCost: (size) => `每个请求的 KV 缓存占用 ${size}。`,
    expected: (speed) => `单个请求预计每秒约 ${speed} 个 token（按内存或显存带宽估算）。`,
    reached: (speed) => `此前在本机实测：单个请求每秒 ${speed} 个 token。`,
    expectedShort: (speed) => `预计每秒约 ${speed} 个 token`,
    reachedShort: (speed) => `本机实测每秒 ${speed} 个 token`,
    caption: '考虑过的每一种精度：所需内存与可用内存',
    precision: '精度',
    memory: '内存（显存）：需要 / 可用',
    need: '需要',
    free: '可用',
    result: '结果',
    freeMark: '可用内存（显存）',
    legend: '图例',
    lacks: (size) => `还差 ${size}`,
    layers: (first, last) => (first === last ? `第 ${first} 层` : `第 ${first}–${last} 层`),
    noLayer: '没有层',
    used: (need, free) => `占 ${need} / ${free}`,
    placements: '各层所在的设备',
    verdict: { chosen: '已选择', fits: '也放得下', too_large: '放不下', unsupported: '不支持', excluded: '已排除' },
    part: { weights: '权重', cache: 'KV 缓存', activations: '激活值', overhead: '加载、运行时与余量' },
    origins: '所有设置及其来源',
    origin: { set: '由你设置', measured: '测量得出', default: '默认', stepped_down: '已降级' },
    proof: (measured, planned) => `满载实测 ${measured}，预估 ${planned}。`,
  },

  refusal: {
    envLabel: '把这一行写入 .env，然后运行“docker compose up -d”（或“make run”）',
    copyLine: '复制这一行',
  },

  death: {
    title: '发生了什么',
    past: '最近一次中断',
    cause: '原因',
    causes: {
      out_of_memory: '内存（显存）不足',
      killed_by_kernel_oom: '内存不足，被内核终止',
      killed_by_signal: '被信号终止',
      bad_checkpoint: '模型文件无法使用',
      self_test: '加载后的自检失败',
      gpu_lost: '显卡掉线',
      no_cuda: 'PyTorch 无法使用显卡',
      hung: '模型进程卡死',
      crashed: '模型进程崩溃',
    },
    signal: (number) => `信号 ${number}`,
    exit: (code) => `退出码 ${code}`,
    at: '时间',
    limit: '内存上限',
    peak: '最高内存占用',
    count: '累计中断次数',
    back: '模型会自动重新启动，你的对话已保留。',
  },

  ...accessZh,
  ...chatZh,
  ...errorsZh,

  banner: { details: '详情' },

  footer: {
    label: '服务状态',
    precision: (precision) => `精度 ${precision}`,
    plan: '方案与内存',
    context: (tokens) => `上下文 ${tokens} 个 token`,
    version: (version) => `Berth ${version}`,
  },

  dialog: { close: '关闭' },
};
