import { accessZh } from './access.zh';
import { chatZh } from './chat.zh';
import type { Words } from './en';

export const zh: Words = {
  language: {
    name: '中文',
    other: 'English',
    switch: 'Switch to English',
  },

  units: { seconds: '秒', minutes: '分', hours: '小时' },

  phase: {
    starting: { title: '正在启动', text: '服务已经运行，接下来测量这台机器的内存。' },
    planning: { title: '正在测量内存并选择精度', text: '正在把模型文件头与这里的可用内存作比较，此时还没有读取权重。' },
    downloading: { title: '正在下载模型', text: '权重只需下载一次，之后会保留。中断后会从断点继续。' },
    loading: { title: '正在载入模型', text: '权重正在进入内存。载入完成后，对话会自动打开。' },
    proving: { title: '正在测试最坏情况', text: '现在先运行一次允许的最长请求，确保以后内存不会用完。' },
    ready: { title: '已就绪', text: '模型已载入，可以回答。' },
    recovering: { title: '正在恢复', text: '模型进程已结束，正在自动重新启动，无需任何操作。' },
    failed: { title: '模型无法启动', text: '原因和需要修改的内容见下方。' },
    stopping: { title: '正在关闭', text: '服务正在停止。' },
  },

  steps: {
    label: '打开对话之前的步骤',
    measure: '测量',
    plan: '规划',
    download: '下载',
    load: '载入',
    prove: '测试',
    chat: '对话',
    done: '已完成',
    current: '进行中',
    ahead: '未开始',
  },

  progress: {
    label: '进度',
    amount: (done, total) => `${done} / ${total}`,
    rate: (rate) => `${rate}/秒`,
    left: (time) => `大约还需 ${time}`,
    almost: '即将完成',
    preparing: '模型进程正在启动，开始读取权重后会显示字节数。',
    elapsed: (time) => `本步骤已用 ${time}`,
    total: (time) => `启动至今 ${time}`,
  },

  away: {
    connecting: '正在连接…',
    lost: '无法连接到服务，每秒重试一次。',
  },

  model: {
    label: '模型',
    parameters: (count) => `参数量 ${count}`,
    stored: (size, dtype) => `文件 ${size}（${dtype}）`,
    context: (tokens) => `上下文最长 ${tokens} 个词元`,
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
    disk: '磁盘',
    free: (size) => `可用 ${size}`,
  },

  plan: {
    title: '规划',
    chosenTitle: (precision, place) => `${place} 上的 ${precision}`,
    why: '为什么选择这个精度',
    refused: '没有可以选择的精度',
    serves: (context, slots) =>
      `上下文 ${context} 个词元，${slots === 1 ? '逐个处理请求' : `同时处理最多 ${slots} 个请求`}`,
    caption: '考虑过的每一种精度：需要多少内存，可用多少内存',
    precision: '精度',
    memory: '所需内存与可用内存',
    need: '需要',
    free: '可用',
    result: '结果',
    freeMark: '可用内存',
    legend: '图例',
    lacks: (size) => `还差 ${size}`,
    layers: (first, last) => (first === last ? `第 ${first} 层` : `第 ${first}–${last} 层`),
    noLayer: '没有层',
    used: (need, free) => `占 ${need} / ${free}`,
    placements: '各层所在的设备',
    verdict: { chosen: '已选择', fits: '也放得下', too_large: '放不下', unsupported: '不支持', excluded: '已排除' },
    part: { weights: '权重', cache: '对话缓存', activations: '工作内存', overhead: '载入、运行时与余量' },
    origins: '每一项设置及其来源',
    setting: '设置',
    value: '值',
    why_column: '原因',
    origin: { set: '由你设置', measured: '测量得出', default: '默认', stepped_down: '已降级' },
    proof: (measured, planned) => `最长请求的实测占用：${measured}；计划：${planned}。`,
    none: '内存测量完成后，规划会显示在这里。',
  },

  refusal: {
    envLabel: '把这一行写入 .env，然后重新启动',
    copyLine: '复制这一行',
  },

  death: {
    title: '发生了什么',
    past: '最近一次中断',
    cause: '原因',
    causes: {
      out_of_memory: '内存不足',
      killed_by_kernel_oom: '内存不足，被内核终止',
      killed_by_signal: '被信号终止',
      bad_checkpoint: '模型文件无法使用',
      self_test: '载入后的自检失败',
      gpu_lost: '显卡丢失',
      no_cuda: 'PyTorch 无法使用显卡',
      hung: '引擎卡死',
      crashed: '进程崩溃',
    },
    signal: (number) => `信号 ${number}`,
    exit: (code) => `退出码 ${code}`,
    at: '时间',
    limit: '内存上限',
    peak: '最高占用',
    count: '累计中断次数',
    back: '它会自动恢复，你的对话仍保留在这里。',
  },

  ...accessZh,
  ...chatZh,

  banner: { details: '详情' },

  footer: {
    label: '服务状态',
    precision: (precision) => `精度 ${precision}`,
    plan: '规划与内存',
    context: (tokens) => `上下文 ${tokens} 个词元`,
    version: (version) => `Berth ${version}`,
  },

  dialog: { close: '关闭' },
};
