// The page's keyboard shortcuts.

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

type Keystroke = Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'metaKey' | 'shiftKey' | 'altKey'>;

/** What a keystroke does; null for one that is not a shortcut. */
export function actionOf(event: Keystroke): Action | null {
  const ctrlPressed = event.ctrlKey || event.metaKey;
  if (event.altKey) return null;
  const shortcut = SHORTCUTS.find(
    ({ key, ctrl = false, shift = false }) =>
      key.toLowerCase() === event.key.toLowerCase() && ctrl === ctrlPressed && shift === event.shiftKey,
  );
  return shortcut?.action ?? null;
}

/** The keys of an action as the reader's keyboard names them. */
export function keyLabels(action: Action, mac: boolean): readonly string[] {
  const shortcut = SHORTCUTS.find((each) => each.action === action);
  if (!shortcut) return [];
  const key = shortcut.key === 'Escape' ? 'Esc' : shortcut.key.toUpperCase();
  return [...(shortcut.ctrl ? [mac ? '⌘' : 'Ctrl'] : []), ...(shortcut.shift ? [mac ? '⇧' : 'Shift'] : []), key];
}

export const onMac = (): boolean => /Mac|iPhone|iPad/.test(navigator.userAgent);
