import type { accessEn } from './access.en';
import type { Widen } from './en';

export const accessZh: Widen<typeof accessEn> = {
  access: {
    title: '登录 Berth',
    lead: '使用此服务需要密钥。',
    key: '密钥',
    signIn: '登录',
    signOut: '退出登录',
    where: '在哪里找到密钥',
    logs: '如果密钥由 Berth 生成，日志中会有一个打开即登录的链接：',
    again: '再次显示该链接：',
    yourKey:
      '如果你设置了 GLM_API_KEY 或 GLM_API_KEY_FILE，请使用该密钥。不使用 Docker 时，链接在“make run”的输出中；由 Berth 生成的密钥保存在 .berth/api_key。',
  },
};
