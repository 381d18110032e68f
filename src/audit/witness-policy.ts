import { MeshError, type Place, quote } from '../errors.ts';
import { openCheckpoint, type Checkpoint } from './checkpoint.ts';
import { type Cosignature, openCosignatures, parseWitnessKey, type WitnessKey } from './cosignature.ts';
import { type NoteKey, parseVerifierKey } from './note.ts';

/** Whose word makes a checkpoint count. */
export type WitnessPolicy = {
  /** Any of them signs; empty when the log is known otherwise. */
  readonly logs: readonly { readonly key: NoteKey; readonly url: string | null }[];
  /** In the order of the file. */
  readonly witnesses: readonly PolicyWitness[];
  readonly quorum: Quorum;
};

export type PolicyWitness = {
  /** Within the policy only. */
  readonly name: string;
  readonly key: WitnessKey;
  /** Where it takes checkpoints: the submission prefix. */
  readonly url: string | null;
};

/** Which witnesses are enough. */
export type Quorum =
  | { readonly kind: 'none' }
  | { readonly kind: 'witness'; readonly key: WitnessKey }
  | { readonly kind: 'group'; readonly atLeast: number; readonly members: readonly Quorum[] };

/**
 * Reads a policy file.
 * @param file what errors call it
 * @throws MeshError `audit_policy_invalid` with the line
 * @see https://c2sp.org/tlog-policy
 */
export function parseWitnessPolicy(text: string, file: string): WitnessPolicy {
  if (text.length > maxLength) throw invalid(`the policy has more than ${maxLength} characters`);
  const logs: WitnessPolicy['logs'][number][] = [];
  const witnesses: PolicyWitness[] = [];
  const named = new Map<string, Quorum>();
  // Each name counts in one way only: as a member of one group.
  const members = new Set<string>();
  const [logKeys, witnessKeys] = [new Set<string>(), new Set<string>()];
  let quorum: Quorum | undefined;
  const define = (name: string, what: Quorum): void => {
    if (name === none || named.has(name)) throw invalid(`${quote(name)} is defined already`);
    if (named.size >= maxNames) throw invalid(`the policy has more than ${maxNames} witnesses and groups`);
    named.set(name, what);
  };
  const lookUp = (name: string): Quorum => {
    const found = named.get(name);
    if (found === undefined) throw invalid(`${quote(name)} is not defined on a line before`);
    return found;
  };
  const useKey = <K extends NoteKey>(key: K, keys: Set<string>): K => {
    const raw = key.publicKey.export({ format: 'der', type: 'spki' }).toString('hex');
    if (keys.has(raw)) throw invalid('the key is on another line already');
    keys.add(raw);
    return key;
  };
  const readLine = (line: string): void => {
    if (/[^\t -\u007e\u0080-\u{10ffff}]/u.test(line)) throw invalid('the line has a control character');
    const [word = '', ...rest] = line.split(/[ \t]+/).filter((part) => part !== '');
    const [name = '', second = '', third] = rest;
    if (word === '' || word.startsWith('#')) return;
    if (word === 'log' && (rest.length === 1 || rest.length === 2)) {
      if (logs.length >= maxNames) throw invalid(`the policy has more than ${maxNames} logs`);
      logs.push({ key: useKey(parseVerifierKey(name), logKeys), url: second === '' ? null : second });
    } else if (word === 'witness' && (rest.length === 2 || rest.length === 3)) {
      const key = useKey(parseWitnessKey(second), witnessKeys);
      define(name, { kind: 'witness', key });
      witnesses.push({ name, key, url: third ?? null });
    } else if (word === 'group' && rest.length >= 3) {
      const names = rest.slice(2);
      for (const member of names) {
        if (members.has(member)) throw invalid(`${quote(member)} is a member of a group already`);
        members.add(member);
      }
      const group = names.map(lookUp);
      define(name, { kind: 'group', atLeast: parseThreshold(second, names.length), members: group });
    } else if (word === 'quorum' && rest.length === 1) {
      if (quorum !== undefined) throw invalid('there is a quorum already');
      quorum = name === none ? { kind: 'none' } : lookUp(name);
    } else {
      throw invalid(`${quote(line.trim())} is no line of a policy`);
    }
  };
  for (const [at, line] of text.split('\n').entries()) {
    try {
      readLine(line);
    } catch (error) {
      if (error instanceof MeshError) throw invalid(error.message, { file, line: at + 1, column: 1 });
      throw error;
    }
  }
  if (quorum === undefined) throw invalid('the policy has no quorum line');
  return { logs, witnesses, quorum };
}

/**
 * The policy of so many of some witnesses.
 * @param atLeast null for all
 * @throws MeshError `audit_policy_invalid`
 */
export function policyOfWitnesses(keys: readonly WitnessKey[], atLeast: number | null): WitnessPolicy {
  const needed = atLeast ?? keys.length;
  if (needed > keys.length || needed < 1) {
    throw invalid(`a quorum of ${needed} takes as many witnesses, and there are ${keys.length}`);
  }
  if (new Set(keys.map(({ publicKey }) => publicKey.export({ format: 'jwk' }).x)).size < keys.length) {
    throw invalid('a witness is given twice');
  }
  return {
    logs: [],
    witnesses: keys.map((key) => ({ name: key.name, key, url: null })),
    quorum: { kind: 'group', atLeast: needed, members: keys.map((key) => ({ kind: 'witness', key })) },
  };
}

/** Whether those who have cosigned are enough. */
export function isQuorum(quorum: Quorum, cosigned: ReadonlySet<WitnessKey>): boolean {
  switch (quorum.kind) {
    case 'none':
      return true;
    case 'witness':
      return cosigned.has(quorum.key);
    case 'group':
      return quorum.members.filter((member) => isQuorum(member, cosigned)).length >= quorum.atLeast;
    default:
      return quorum satisfies never;
  }
}

/** A checkpoint that a policy accepts, and the witnesses that have cosigned it. */
export type WitnessedCheckpoint = {
  readonly checkpoint: Checkpoint;
  readonly cosignatures: readonly Cosignature[];
};

/**
 * Opens a checkpoint that its log has signed and a quorum of witnesses has cosigned.
 * @throws MeshError `audit_note_invalid`, `audit_signature_invalid`, `audit_quorum_missing`
 */
export function openWitnessed(
  note: string,
  key: NoteKey,
  { witnesses, quorum }: Pick<WitnessPolicy, 'witnesses' | 'quorum'>,
): WitnessedCheckpoint {
  const checkpoint = openCheckpoint(note, key);
  const cosignatures = openCosignatures(
    note,
    witnesses.map((witness) => witness.key),
  );
  const cosigned = new Set(cosignatures.map((cosignature) => cosignature.key));
  if (isQuorum(quorum, cosigned)) return { checkpoint, cosignatures };
  const who = [...cosigned].map(({ name }) => quote(name)).join(', ');
  throw new MeshError(
    'audit_quorum_missing',
    `the checkpoint of ${checkpoint.size} entries is cosigned by ${who === '' ? 'none of the witnesses' : `${who} only`}`,
    { fix: 'see countersign audit witnesses on the server: who has not answered, and why' },
  );
}

function parseThreshold(text: string, count: number): number {
  if (text === 'any') return 1;
  if (text === 'all') return count;
  const atLeast = /^[1-9][0-9]{0,2}$/.test(text) ? Number(text) : 0;
  if (atLeast >= 1 && atLeast <= count) return atLeast;
  throw invalid(`${quote(text)} is not any, all or a number from 1 to ${count}`);
}

function invalid(message: string, place?: Place): MeshError {
  return new MeshError('audit_policy_invalid', message, {
    ...(place === undefined ? {} : { place }),
    fix: 'write it as c2sp.org/tlog-policy says: lines of log, witness, group, and one quorum',
  });
}

const none = 'none';
const maxNames = 256;
const maxLength = 262_144;
