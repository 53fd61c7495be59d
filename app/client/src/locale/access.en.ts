export const accessEn = {
  access: {
    title: 'Sign in to Berth',
    lead: 'This service asks for its key.',
    key: 'Key',
    enter: 'Sign in',
    leave: 'Sign out',
    wrong: 'This is not the key of this service.',
    throttled: (seconds: number) => `Too many wrong keys from your address. Try again in ${seconds} s.`,
    away: 'The service cannot be reached just now.',
    other: 'The service refused this. Reload the page and try again.',
    where: 'Where to find the key',
    logs: 'If Berth made the key, its log prints a link that signs you in:',
    again: 'The same link once more:',
    own: 'If you have set GLM_API_KEY or GLM_API_KEY_FILE, it is that key. Without Docker, the log is what “make run” prints, and a key that Berth made lies in .berth/api_key.',
  },
};
