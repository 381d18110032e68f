import type { RotationRefusal } from './ca/rotation-event.ts';
import type { Laggard } from './ca/slot.ts';
import { MeshError, quote } from './errors.ts';

/** The most laggards a message names; the rest are counted. */
export const namedLaggards = 20;

/** The error of a refused step: who is in the way, by name. */
export function refusalError(refusal: RotationRefusal): MeshError {
  switch (refusal.code) {
    case 'rotation_unproven': {
      const { laggards, why, code } = refusal;
      const who = laggards.length === 0 ? '' : `: ${nameLaggards(laggards)}`;
      return new MeshError(code, `${why}${who}`, {
        fix: 'wait, mend or stop who is named, or use --force, which is recorded; see `countersign ca status`',
      });
    }
    case 'rotation_out_of_order':
      return new MeshError(refusal.code, refusal.why, { fix: refusal.fix });
    case 'csr_not_waiting':
      return new MeshError(refusal.code, refusal.why, {
        fix: 'use `countersign ca rotate` to have a key made, then `countersign ca csr`',
      });
    case 'authority_not_found':
      return new MeshError(refusal.code, refusal.why, { fix: 'see `countersign ca status`' });
    default:
      return refusal satisfies never;
  }
}

/** Laggards in words, at most {@link namedLaggards}, then a count. */
export function nameLaggards(laggards: readonly Laggard[]): string {
  const named = laggards.slice(0, namedLaggards).map(({ spiffeId, node, lastSeen, why, until }) => {
    const where = node === '' ? '' : ` (node ${quote(node)})`;
    const seen = lastSeen === null ? '' : `, last seen ${lastSeen.toISOString()}`;
    return `${spiffeId}${where} ${why}${seen}, its certificate ends ${until.toISOString()}`;
  });
  const more = laggards.length - named.length;
  return [...named, ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}
