// The sign-in form, in English.

export const accessEn = {
  access: {
    title: 'Sign in to Berth',
    lead: 'This service needs a key.',
    key: 'Key',
    signIn: 'Sign in',
    signOut: 'Sign out',
    where: 'Where to find the key',
    logs: 'If Berth generated the key, its log contains a link that signs you in:',
    again: 'To print the link again:',
    yourKey:
      'If you set GLM_API_KEY or GLM_API_KEY_FILE, use that key. Without Docker, the link is in the output of “make run”, and a generated key is stored in .berth/api_key.',
  },
};
