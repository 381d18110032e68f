import { createNotice } from '../identity/notice.ts';
import type { KeptTrust } from '../identity/node-presence.ts';
import { bundleSha256, type TrustBundle } from '../spiffe/bundle.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type { KeptTrust as Wire } from '../wire/node.ts';
import type { NodeIdentity } from './node-client.ts';
import { integerOf } from './wire-values.ts';

/** What an agent goes by that a crash does not take from it. */
export type TrustKeeper = {
  /** These are in the sealed cache now, in place of those before. */
  readonly saved: (identity: NodeIdentity, bundle: TrustBundle) => void;
  /** Null while nothing was saved, or while what was is ahead of what is in force. */
  readonly current: () => KeptTrust | null;
  /** Calls back when something else was saved. */
  readonly onChange: (listener: () => void) => () => void;
};

/** @param inForce the bundle that the server is verified with from the next connection on */
export function createTrustKeeper(inForce: () => TrustBundle): TrustKeeper {
  const notice = createNotice();
  let kept: Kept | undefined;
  return {
    saved: (identity, bundle) => {
      if (kept?.identity === identity && kept.bundle === bundle) return;
      const { serial } = checkX509SvidLeaf(identity.certificates[0] ?? new Uint8Array(0));
      const told = { bundleSequence: bundle.sequence, bundleSha256: bundleSha256(bundle), serial };
      kept = { identity, bundle, told };
      notice.announce();
    },
    current: () => {
      if (kept === undefined) return null;
      const now = inForce();
      // INVARIANT: told is only what holds both for this process and for the next one on this cache. A bundle that came
      // with a certificate may be newer than the view; one that is older was put back by the server.
      return now === kept.bundle || now.sequence > kept.bundle.sequence ? kept.told : null;
    },
    onChange: notice.subscribe,
  };
}

type Kept = { readonly identity: NodeIdentity; readonly bundle: TrustBundle; readonly told: KeptTrust };

export function keptTrustToWire({ bundleSequence, bundleSha256: sha256, serial }: KeptTrust): Wire {
  return { bundleSequence: BigInt(bundleSequence), bundleSha256: Buffer.from(sha256, 'hex'), serial };
}

/** Whatever it says, only what is as the server has it counts. @throws MeshError `message_invalid` */
export function keptTrustFromWire({ bundleSequence, bundleSha256: sha256, serial }: Wire): KeptTrust {
  return {
    bundleSequence: integerOf(bundleSequence, 'a sequence'),
    bundleSha256: Buffer.from(sha256).toString('hex'),
    serial,
  };
}
