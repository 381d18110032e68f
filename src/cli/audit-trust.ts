import { Option } from 'commander';
import { type Checkpoint, openCheckpoint } from '../audit/checkpoint.ts';
import { type Cosignature, parseWitnessKey, type WitnessKey } from '../audit/cosignature.ts';
import { type NoteKey, parseVerifierKey, readNote } from '../audit/note.ts';
import {
  openWitnessed,
  parseWitnessPolicy,
  policyOfWitnesses,
  type WitnessPolicy,
} from '../audit/witness-policy.ts';
import { MeshError } from '../errors.ts';
import { repeated } from './arguments.ts';
import { readVerifierKey } from './audit-source.ts';
import type { AdminClient } from './client.ts';
import { readText } from './read-text.ts';
import type { Session } from './session.ts';

/** Whose word a checkpoint takes: the log's, and that of witnesses when some are asked for. */
export type TrustOptions = {
  readonly key?: string;
  readonly policy?: string;
  readonly witness?: readonly string[];
  readonly quorum?: string;
};

/** How checkpoints are opened. */
export type LogTrust = {
  /** Whether witnesses are asked for. */
  readonly isWitnessed: boolean;
  /** @throws MeshError `audit_note_invalid`, `audit_signature_invalid`, `audit_quorum_missing` */
  readonly open: (note: string) => OpenedCheckpoint;
  /** One that was opened before, for which the log's own word is enough. */
  readonly openEarlier: (note: string) => Checkpoint;
  readonly keyOf: (note: string) => NoteKey;
};

export type OpenedCheckpoint = {
  readonly checkpoint: Checkpoint;
  readonly key: NoteKey;
  /** Of the witnesses that were asked for. */
  readonly cosignatures: readonly Cosignature[];
};

/** The options that name witnesses. */
export function trustOptions(): readonly Option[] {
  return [
    new Option(
      '--policy <file>',
      'demand what a policy file demands (C2SP tlog-policy): logs, witnesses, quorum',
    ),
    new Option(
      '--witness <key>',
      'demand a cosignature of this witness, or a file with its key; may be repeated',
    )
      .argParser(repeated)
      .conflicts('policy'),
    new Option('--quorum <count>', 'so many of them are enough; all when left out').conflicts('policy'),
  ];
}

/**
 * Reads whose word counts. Without a key and without a log in the policy the key is asked of the server, with a warning.
 * @throws MeshError `usage`, `audit_policy_invalid`, `audit_note_invalid`, and what reading files throws
 */
export async function readTrust(
  session: Session,
  { key: given, policy: file, witness: witnesses = [], quorum }: TrustOptions,
  client: AdminClient | undefined,
): Promise<LogTrust> {
  if (quorum !== undefined && witnesses.length === 0) throw usage('--quorum goes with --witness');
  const policy =
    file !== undefined
      ? parseWitnessPolicy(readText(file, file), file)
      : witnesses.length > 0
        ? policyOfWitnesses(witnesses.map(readWitnessKey), parseQuorum(quorum))
        : null;
  const keys = await logKeys(session, given, policy, client);
  const keyOf = (note: string): NoteKey => {
    const { signatures } = readNote(note);
    const found = keys.find((key) =>
      signatures.some(({ name, keyId }) => name === key.name && keyId === key.keyId),
    );
    // With none of them the opening says whose signatures there are.
    return found ?? (keys[0] as NoteKey);
  };
  return {
    isWitnessed: policy !== null && policy.quorum.kind !== 'none',
    open: (note) => {
      const key = keyOf(note);
      if (policy === null) return { checkpoint: openCheckpoint(note, key), key, cosignatures: [] };
      return { ...openWitnessed(note, key, policy), key };
    },
    openEarlier: (note) => openCheckpoint(note, keyOf(note)),
    keyOf,
  };
}

async function logKeys(
  session: Session,
  given: string | undefined,
  policy: WitnessPolicy | null,
  client: AdminClient | undefined,
): Promise<readonly NoteKey[]> {
  const known = policy?.logs.map(({ key }) => key) ?? [];
  if (given !== undefined) {
    const key = readVerifierKey(given);
    if (known.length === 0 || known.some(({ name, keyId }) => name === key.name && keyId === key.keyId))
      return [key];
    throw new MeshError('audit_policy_invalid', 'the policy has logs, and not the one of --key', {
      fix: 'leave --key out, or put it into the policy',
    });
  }
  if (known.length > 0) return known;
  if (client === undefined) {
    throw new MeshError('usage', 'an export is verified with --key', {
      fix: 'give the key that countersign audit key printed while you trusted the server, or a file with it',
    });
  }
  session.say(
    'warning: the key comes from the server itself; keep the output of audit key and give it with --key\n',
  );
  return [parseVerifierKey((await client.getText('/v1/audit/log/key')).trimEnd())];
}

function readWitnessKey(text: string): WitnessKey {
  return parseWitnessKey(
    /^[^+]+\+[0-9a-f]{8}\+/.test(text) ? text : readText(text, text).replace(/\r?\n$/, ''),
  );
}

function parseQuorum(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (/^[1-9][0-9]{0,2}$/.test(text)) return Number(text);
  throw usage('--quorum is a number of witnesses');
}

function usage(message: string): MeshError {
  return new MeshError('usage', message, { fix: 'see countersign audit verify --help' });
}
