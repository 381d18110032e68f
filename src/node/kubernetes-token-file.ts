import { closeSync, openSync, readSync } from 'node:fs';
import { MeshError, quote } from '../errors.ts';
import { maxTokenBytes } from '../spiffe/jwt-token.ts';

/** Where a pod that follows docs/nodes.md has its token. */
export const defaultTokenFile = '/var/run/secrets/tokens/countersign';

/**
 * Reads a projected service account token. Kubernetes puts a link there and decides who may read it, so neither is
 * judged, unlike with files of ours.
 * @throws MeshError `file_missing`; `node_evidence_invalid` that repeats nothing of what is no token
 */
export function readKubernetesToken(file: string): string {
  const text = readStart(file).trim();
  if (text.length <= maxTokenBytes && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return text;
  throw new MeshError('node_evidence_invalid', `${quote(file)} holds no service account token`, {
    fix: 'give the file of a projected volume with a serviceAccountToken',
  });
}

function readStart(file: string): string {
  try {
    const descriptor = openSync(file, 'r');
    try {
      const buffer = Buffer.alloc(maxTokenBytes + 2);
      return buffer.toString('latin1', 0, readSync(descriptor, buffer, 0, buffer.length, 0));
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    throw new MeshError('file_missing', `the service account token ${quote(file)} cannot be read`, {
      fix: 'mount a projected volume with a serviceAccountToken there, or give --kubernetes-token-file',
      cause,
    });
  }
}
