import { type JwtKeyEffect, type JwtKeyEvent, rotateJwtKeys } from '../../src/ca/jwt-rotation.ts';
import type { JwtEvidence, JwtKeyState } from '../../src/ca/jwt-slot.ts';

// Short words for the rotation of JWT keys: times are seconds.

const start = Date.UTC(2026, 0, 1);
export const at = (seconds: number): Date => new Date(start + seconds * 1_000);
export const day = 86_400;
export const empty: JwtKeyState = { slots: [], sequence: 0 };

export const made = (keyId: string): JwtKeyEvent => ({
  kind: 'made',
  key: { keyId, keyType: 'ec-p256', publicKey: new Uint8Array([1]) },
});

/** `expiries`: seconds, by key. */
export const proof = (
  change: { expiries?: Record<string, number>; servedSince?: number; doubt?: string } = {},
): JwtEvidence => ({
  servedSince: at(change.servedSince ?? 0),
  lastExpiries: new Map(Object.entries(change.expiries ?? {}).map(([key, seconds]) => [key, at(seconds)])),
  doubt: change.doubt ?? null,
});
export const rotate: JwtKeyEvent = { kind: 'rotate' };
export const replace: JwtKeyEvent = { kind: 'replace' };
export const activate = (evidence = proof(), force = false): JwtKeyEvent => ({
  kind: 'activate',
  evidence,
  force,
});
export const retire = (evidence = proof(), force = false): JwtKeyEvent => ({
  kind: 'retire',
  evidence,
  force,
});
export const taint = (keyId: string): JwtKeyEvent => ({ kind: 'taint', keyId });
export const tick = (evidence = proof()): JwtKeyEvent => ({ kind: 'tick', evidence });

/** Events and when they come. */
export type Story = readonly (readonly [seconds: number, event: JwtKeyEvent])[];

export function after(story: Story): JwtKeyState {
  return story.reduce((state, [seconds, event]) => rotateJwtKeys(state, event, at(seconds))[0], empty);
}

/** Every state a table starts from, by name. */
export const first: Story = [[0, made('k1')]];
export const prepared: Story = [...first, [1_000, made('k2')]];
export const activated: Story = [...prepared, [1_600, activate()]];
export const retired: Story = [...activated, [2_200, retire()]];

export const show = ({ slots, sequence }: JwtKeyState): string =>
  `${slots.map(({ keyId, state }) => `${keyId} ${state}`).join(', ')} @${sequence}`;

export const tell = (effect: JwtKeyEffect): string => {
  switch (effect.kind) {
    case 'make':
    case 'replace':
      return effect.kind;
    case 'publish':
      return `publish ${effect.sequence}`;
    case 'sign_with':
      return `sign with ${effect.keyId}`;
    case 'forget':
      return `forget ${effect.keyIds.join(' ')}`;
    case 'record':
      return `${effect.keyId} ${effect.action}`;
    case 'refuse':
      return `refuse ${effect.refusal.code}`;
    default:
      return effect satisfies never;
  }
};
