import { decodePem } from '../spiffe/pem.ts';
import { peerCertificateIds } from '../spiffe/svid.ts';

/** What a verified peer certificate says about its holder. */
export type PeerNames = ReturnType<typeof peerCertificateIds>;

/** The names in a peer certificate, or undefined when the text holds not exactly one readable certificate. */
export type ReadPeerCertificate = (urlEncodedPem: string) => PeerNames | undefined;

/**
 * A reader of `source.certificate` (URL-encoded PEM of the leaf) that remembers what it has read: a proxy sends the
 * same kilobyte with each call of a connection. The key is the whole text, so nothing is taken for anything else. Texts
 * over 8 KiB are read each time: whoever can open the socket may send any, and the keys are kept.
 * @param capacity certificates remembered at most, the least recently used forgotten first
 */
export function createPeerCertificateReader(capacity = 2_048): ReadPeerCertificate {
  const known = new Map<string, PeerNames | undefined>();
  return (text) => {
    if (text.length > maxEncodedBytes) return undefined;
    if (text.length > maxKeptBytes) return read(text);
    const found = known.has(text);
    const names = found ? known.get(text) : read(text);
    if (found) known.delete(text);
    else if (known.size >= capacity) {
      for (const oldest of known.keys()) {
        known.delete(oldest);
        break;
      }
    }
    known.set(text, names);
    return names;
  };
}

function read(text: string): PeerNames | undefined {
  try {
    const blocks = decodePem(decodeURIComponent(text), 'CERTIFICATE', { maxBytes: maxEncodedBytes });
    const [leaf] = blocks;
    return leaf === undefined || blocks.length !== 1 ? undefined : peerCertificateIds(leaf);
  } catch {
    return undefined;
  }
}

const maxEncodedBytes = 65_536;
const maxKeptBytes = 8_192;
