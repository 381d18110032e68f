import type { CoverageClient, SecretContent } from '../identity/coverage.ts';
import { MeshError } from '../errors.ts';
import { maxTtlSeconds } from '../identity/entry.ts';
import type { CoverageNote as WireNote } from '../wire/node.ts';
import { dateOf, integerOf } from './wire-values.ts';

/** What a process was sent, or has taken into use. */
export type CoverageNote = {
  readonly isConfirmed: boolean;
  readonly client: CoverageClient;
  readonly name: string;
  readonly content: SecretContent;
  readonly at: Date;
};

/** A note as it travels; the node is told by the connection. */
export function noteToWire({ isConfirmed, client, name, content, at }: CoverageNote): WireNote {
  return {
    confirmed: isConfirmed,
    uid: BigInt(client.uid),
    pid: BigInt(client.pid),
    client: client.node.toWellFormed(),
    name: name.toWellFormed(),
    content:
      content.kind === 'bundle'
        ? { $case: 'bundleSequence', bundleSequence: BigInt(content.sequence) }
        : {
            $case: 'svid',
            svid: {
              spiffeId: content.spiffeId,
              serial: content.serial,
              issuerKeyId: content.issuerKeyId,
              notAfterMs: BigInt(content.notAfter.getTime()),
              bundleSequence:
                content.bundleSequence === undefined ? undefined : BigInt(content.bundleSequence),
            },
          },
    atMs: BigInt(at.getTime()),
  };
}

/**
 * Reads a note of a node about a process of its own. INVARIANT: whatever it says, the note is over a day from now: no
 * certificate lives longer, and nothing has happened after `now`.
 * @throws MeshError `message_invalid`
 */
export function noteFromWire(node: string, note: WireNote, now: Date): CoverageNote {
  if (note.name.length > maxTextLength || note.client.length > maxTextLength) throw invalid();
  return {
    isConfirmed: note.confirmed,
    client: {
      host: node,
      uid: integerOf(note.uid, 'a uid'),
      pid: integerOf(note.pid, 'a pid'),
      node: note.client,
    },
    name: note.name,
    content: contentOf(note, now),
    at: new Date(Math.min(dateOf(note.atMs).getTime(), now.getTime())),
  };
}

function contentOf({ content }: WireNote, now: Date): SecretContent {
  if (content?.$case === 'bundleSequence') {
    return { kind: 'bundle', sequence: integerOf(content.bundleSequence, 'a sequence') };
  }
  if (content === undefined) throw invalid();
  const { spiffeId, serial, issuerKeyId, notAfterMs, bundleSequence } = content.svid;
  if (!/^[0-9a-f]{2,40}$/.test(serial) || !/^[0-9a-f]{0,128}$/.test(issuerKeyId)) throw invalid();
  if (spiffeId.length > maxTextLength) throw invalid();
  const notAfter = dateOf(notAfterMs);
  if (notAfter.getTime() - now.getTime() > (maxTtlSeconds + toleratedSeconds) * 1_000) throw invalid();
  return {
    kind: 'svid',
    spiffeId,
    serial,
    issuerKeyId,
    notAfter,
    ...(bundleSequence === undefined ? {} : { bundleSequence: integerOf(bundleSequence, 'a sequence') }),
  };
}

function invalid(): MeshError {
  return new MeshError('message_invalid', 'the report has a note that says nothing');
}

const maxTextLength = 2_048;
// A clock of ours that was put back.
const toleratedSeconds = 3_600;
