import { MeshError } from '../errors.ts';
import type { PolicyDocument } from '../identity/mesh.ts';
import type { PolicyRevision } from '../identity/policy-revision.ts';
import type * as wire from '../wire/node.ts';
import { dateOf, integerOf } from './wire-values.ts';

/** A policy revision as it travels. */
export function policyRevisionToWire(revision: PolicyRevision): wire.PolicyRevision {
  const { number, id, parent, time, recordSha256, publicKey, signature } = revision;
  return {
    number: BigInt(number),
    id,
    parentNumber: BigInt(parent?.number ?? 0),
    parentId: parent?.id ?? '',
    timeMs: BigInt(time.getTime()),
    recordSha256,
    publicKey: Buffer.from(publicKey, 'base64'),
    signature: Buffer.from(signature, 'base64'),
  };
}

/** One that was sent; whether it is true is for `policy-guard.ts` to say. @throws MeshError `view_invalid` */
export function policyRevisionFromWire(revision: wire.PolicyRevision): PolicyRevision {
  const number = integerOf(revision.number, 'a number');
  const parent = integerOf(revision.parentNumber, 'a number');
  const digests = [revision.id, revision.recordSha256, ...(parent === 0 ? [] : [revision.parentId])];
  if (number <= parent || !digests.every((digest) => sha256.test(digest))) {
    throw new MeshError('view_invalid', 'the view has a policy revision that is none');
  }
  return {
    number,
    id: revision.id,
    parent: parent === 0 ? null : { number: parent, id: revision.parentId },
    time: dateOf(revision.timeMs),
    recordSha256: revision.recordSha256,
    publicKey: Buffer.from(revision.publicKey).toString('base64'),
    signature: Buffer.from(revision.signature).toString('base64'),
  };
}

/** A policy as it travels. */
export function policyToWire({ key, source, file, line, sha256, revision }: PolicyDocument): wire.Policy {
  return { key, source, file, line: BigInt(line), sha256, revision: BigInt(revision) };
}

/** One that was sent. @throws MeshError `view_invalid` */
export function policyFromWire({ key, source, file, line, sha256, revision }: wire.Policy): PolicyDocument {
  return {
    key,
    source,
    file,
    line: integerOf(line, 'a line'),
    sha256,
    revision: integerOf(revision, 'a revision'),
  };
}

const sha256 = /^[0-9a-f]{64}$/;
