// The page's keyboard shortcuts: which there are, and which one an event is.

export type Action = 'newChat' | 'search' | 'sidebar' | 'settings' | 'input' | 'help';

interface Shortcut {
  readonly action: Action;
  readonly key: string;
  readonly ctrl?: boolean;
  readonly shift?: boolean;
}

const SHORTCUTS: readonly Shortcut[] = [
  { action: 'newChat', key: 'o', ctrl: true, shift: true },
  { action: 'search', key: 'k', ctrl: true },
  { action: 'sidebar', key: 'b', ctrl: true },
  { action: 'settings', key: ',', ctrl: true },
  { action: 'input', key: 'Escape', shift: true },
  { action: 'help', key: '/', ctrl: true },
];

type Pressed = Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'shiftKey' | 'altKey'>;

export function actionOf(event: Pressed): Action | null {
  const ctrl = event.ctrlKey || event.metaKey;
  if (event.altKey) return null;
  const found = SHORTCUTS.find(
    ({ key, ctrl: wantsCtrl = false, shift = false }) =>
      key.toLowerCase() === event.key.toLowerCase() && wantsCtrl === ctrl && shift === event.shiftKey,
  );
  return found?.action ?? null;
}

/** The keys as they are written on the reader's keyboard. */
export function written(action: Action, mac: boolean): readonly string[] {
  const found = SHORTCUTS.find((shortcut) => shortcut.action === action);
  if (!found) return [];
  const key = found.key === 'Escape' ? 'Esc' : found.key.toUpperCase();
  return [...(found.ctrl ? [mac ? '⌘' : 'Ctrl'] : []), ...(found.shift ? [mac ? '⇧' : 'Shift'] : []), key];
}

export const onMac = (): boolean => /Mac|iPhone|iPad/.test(navigator.userAgent);
