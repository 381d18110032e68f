import type { NodeLink } from './node/node-link.ts';
import { type DoorCertificate, doorCertificate, type OwnCertificate } from './up-own-certificate.ts';

/** What the doors of an agent on the network show: the certificate that its node shows to the server. */
export function nodeCertificate({
  identity,
  onChange,
}: Pick<NodeLink, 'identity' | 'onChange'>): OwnCertificate {
  const current = (): DoorCertificate => doorCertificate(identity());
  return {
    current,
    watch: (listener) => {
      let last = identity();
      onChange(() => {
        if (identity() === last) return;
        last = identity();
        listener(current());
      });
      listener(current());
    },
  };
}
