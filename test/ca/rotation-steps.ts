import { rotate } from '../../src/ca/rotation.ts';
import type { MadeKey, RotationEffect, RotationEvent } from '../../src/ca/rotation-event.ts';
import type { Evidence, Holder, RotationState } from '../../src/ca/slot.ts';

// Short words for the rotation of a CA: `r1` is a root, `i1` an intermediate under it; times are days.

const day = 86_400_000;
const start = Date.UTC(2026, 0, 1);
export const at = (days: number): Date => new Date(start + days * day);
export const empty: RotationState = { slots: [], sequence: 0, requested: null };

export const root = (keyId: string, from = 0, until = 3_650): MadeKey => ({
  kind: 'root',
  keyId,
  rootKeyId: keyId,
  notBefore: at(from),
  notAfter: at(until),
  offline: false,
});
export const intermediate = (keyId: string, rootKeyId: string, from = 0, until = 30): MadeKey => ({
  kind: 'intermediate',
  keyId,
  rootKeyId,
  notBefore: at(from),
  notAfter: at(until),
  offline: false,
});
/** A root that is kept elsewhere. */
export const offlineRoot = (keyId: string, from = 0, until = 3_650): MadeKey => ({
  ...root(keyId, from, until),
  offline: true,
});
export const requested = (keyId: string): RotationEvent => ({ kind: 'requested', keyId });
export const imported = (rootKey: MadeKey, signer: MadeKey): RotationEvent => ({
  kind: 'imported',
  root: rootKey,
  signer,
});
export const made = (...keys: MadeKey[]): RotationEvent => ({ kind: 'made', keys });
export const nobody: Evidence = { holders: [], doubt: null };
export const evidence = (...holders: Partial<Holder>[]): Evidence => ({
  holders: holders.map((holder) => ({
    spiffeId: 'spiffe://mesh.test/web',
    node: 'n1',
    lastSeen: at(0),
    sequence: 1,
    leaves: [{ issuerKeyId: 'i1', notAfter: at(2) }],
    ...holder,
  })),
  doubt: null,
});
export const activate = (proof = nobody, force = false): RotationEvent => ({
  kind: 'activate',
  evidence: proof,
  force,
});
export const retire = (proof = nobody, force = false): RotationEvent => ({
  kind: 'retire',
  evidence: proof,
  force,
});
export const taint = (keyId: string): RotationEvent => ({ kind: 'taint', keyId });
export const tick = (proof = nobody): RotationEvent => ({ kind: 'tick', evidence: proof });

export function after(...events: RotationEvent[]): RotationState {
  return events.reduce((state, event) => rotate(state, event, at(1))[0], empty);
}

/** Every state a table starts from, by name. */
export const first = [made(root('r1'), intermediate('i1', 'r1'))];
export const prepared = [...first, made(root('r2', 1), intermediate('i2', 'r2'))];
export const activated = [...prepared, activate()];
export const retired = [...activated, retire()];
export const renewed = [...first, made(intermediate('i1b', 'r1'))];

export const show = ({ slots, sequence, requested: waits }: RotationState): string =>
  `${waits === null ? '' : `${waits} waits, `}${slots.map(({ keyId, state, tainted }) => `${keyId} ${state}${tainted ? '!' : ''}`).join(', ')} @${sequence}`;

export const tell = (effect: RotationEffect): string => {
  switch (effect.kind) {
    case 'make':
      return `make under ${effect.rootKeyId ?? 'a new root'}`;
    case 'request':
      return 'request';
    case 'publish':
      return `publish ${effect.sequence}`;
    case 'sign_with':
      return `sign with ${effect.keyId}`;
    case 'reissue':
      return `reissue ${effect.issuerKeyIds.join(' ')}`;
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
