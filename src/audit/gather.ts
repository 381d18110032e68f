import type { Clock } from '../clock.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { openCosignatures, type WitnessKey } from './cosignature.ts';
import type { NoteKey } from './note.ts';
import { isQuorum, type PolicyWitness, type WitnessPolicy } from './witness-policy.ts';

/** What a witness answered to an add-checkpoint request. */
export type WitnessReply = { readonly status: number; readonly text: string };

/** What asking witnesses needs of the house. */
export type GatherPorts = {
  readonly policy: Pick<WitnessPolicy, 'witnesses' | 'quorum'>;
  /** Of our log. */
  readonly logKey: NoteKey;
  /** The latest checkpoint; null while there is none. */
  readonly latest: () => Promise<string | null>;
  /** The latest that a quorum has cosigned, as it was kept. */
  readonly kept: () => Promise<string | null>;
  readonly keep: (size: number, note: string) => Promise<void>;
  /** Null when the log has fewer than `to` entries, or `from` is more. */
  readonly proveGrowth: (from: number, to: number) => Promise<readonly Uint8Array[] | null>;
  /** @throws Error that says what was in the way; it settles within seconds */
  readonly ask: (witness: PolicyWitness, body: string) => Promise<WitnessReply>;
  readonly clock: Clock;
};

/** How a witness fares. */
export type WitnessState = {
  /** In the policy. */
  readonly name: string;
  /** `name+ID` of its key. */
  readonly keyName: string;
  readonly url: string | null;
  /** `disputes`: it has cosigned what this log does not go on from. `unasked`: it has no URL, or was not asked yet. */
  readonly state: 'unasked' | 'ok' | 'failing' | 'disputes';
  /** Entries of the latest checkpoint that it has cosigned for us since the start; null for none. */
  readonly size: number | null;
  readonly cosignedAt: Date | null;
  /** What was in the way the last time; empty when nothing was. */
  readonly failure: string;
};

/** How the log fares with its witnesses. */
export type GatherState = {
  readonly witnesses: readonly WitnessState[];
  /** Of the latest checkpoint that a quorum has cosigned; null for none. */
  readonly size: number | null;
  /** Since when there is a later one without a quorum; null while there is none. */
  readonly behindSince: Date | null;
};

/** Asks witnesses to cosign. */
export type Gathering = {
  /** Shows the latest checkpoint to each witness that has not cosigned it. One at a time. */
  readonly round: () => Promise<void>;
  readonly state: () => GatherState;
};

/**
 * Gathers cosignatures. What a witness answers is believed only when it is a cosignature over the very checkpoint that it
 * was shown; nothing else of it gets anywhere but the sizes that it states, and whoever lies there is shown a proof that
 * does not fit.
 * @see https://c2sp.org/tlog-witness
 */
export function createGathering(ports: GatherPorts): Gathering {
  const { policy, logKey, clock } = ports;
  const members = policy.witnesses.map((witness): Member => ({
    witness,
    held: 0,
    size: null,
    cosignedAt: null,
    failure: '',
    disputes: false,
    failures: 0,
    nextMs: 0,
  }));
  let current: Current | undefined;
  let witnessedSize: number | null = null;
  let behindSince: Date | null = null;
  let hasRead = false;

  async function round(): Promise<void> {
    const note = await ports.latest();
    if (note === null) return;
    if (!hasRead) await readKept(note);
    hasRead = true;
    if (current?.note !== note) {
      current = { note, checkpoint: openCheckpoint(note, logKey), lines: new Map(), kept: 0 };
    }
    const shown = current;
    if (witnessedSize !== shown.checkpoint.size) behindSince ??= clock.now();
    const nowMs = clock.now().getTime();
    const due = members.filter(
      ({ witness, nextMs }) =>
        witness.url !== null &&
        !shown.lines.has(witness.key) &&
        // A clock that was put back makes nobody wait for long.
        (nextMs <= nowMs || nextMs > nowMs + maxWaitMs),
    );
    await Promise.all(due.map((member) => show(member, shown)));
    // Where no quorum is demanded there is one without anybody.
    const isKept = witnessedSize === shown.checkpoint.size && shown.lines.size === shown.kept;
    if (!isKept) await settle(shown);
  }

  /** After a restart what was gathered goes on counting. */
  async function readKept(latest: string): Promise<void> {
    const kept = await ports.kept();
    if (kept === null) return;
    witnessedSize = openCheckpoint(kept, logKey).size;
    if (!kept.startsWith(latest)) return;
    const lines = openCosignatures(
      kept,
      members.map(({ witness }) => witness.key),
    ).map(({ key, line }) => [key, line] as const);
    current = {
      note: latest,
      checkpoint: openCheckpoint(latest, logKey),
      lines: new Map(lines),
      kept: lines.length,
    };
  }

  async function settle(shown: Current): Promise<void> {
    const { note, checkpoint, lines } = shown;
    if (!isQuorum(policy.quorum, new Set(lines.keys()))) return;
    const below = members.flatMap(({ witness }) => lines.get(witness.key) ?? []);
    await ports.keep(checkpoint.size, note + below.map((line) => `${line}\n`).join(''));
    shown.kept = lines.size;
    witnessedSize = checkpoint.size;
    behindSince = null;
  }

  async function show(member: Member, shown: Current): Promise<void> {
    try {
      const { line, at } = await cosignature(member, shown);
      shown.lines.set(member.witness.key, line);
      Object.assign(member, { size: shown.checkpoint.size, cosignedAt: at, failure: '' });
      Object.assign(member, { disputes: false, failures: 0, nextMs: 0 });
    } catch (error) {
      member.failure = error instanceof Error ? error.message : 'it failed';
      member.disputes = error instanceof Dispute;
      member.failures++;
      const waitMs = Math.min(maxWaitMs, firstWaitMs * 2 ** Math.min(member.failures, 10));
      member.nextMs = clock.now().getTime() + waitMs;
    }
  }

  async function cosignature(member: Member, { note, checkpoint }: Current) {
    const { size } = checkpoint;
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const { held } = member;
      const proof = await ports.proveGrowth(held, size);
      if (proof === null) {
        // It is asked again the next time: a size is no proof, and whoever was wrong may be right by then.
        member.held = 0;
        throw new Dispute(`it has cosigned ${held} entries of this log, which has ${size}`);
      }
      const lines = [`old ${held}`, ...proof.map((hash) => Buffer.from(hash).toString('base64'))];
      const reply = await ports.ask(member.witness, `${lines.join('\n')}\n\n${note}`);
      if (reply.status === 409) {
        const theirs = /^(?<size>0|[1-9][0-9]{0,15})\n$/.exec(reply.text)?.groups?.['size'];
        if (theirs === undefined || Number(theirs) === held)
          throw new Error('it answered 409 without its size');
        member.held = Number(theirs);
        continue;
      }
      if (reply.status === 422) {
        // What it holds may have been something else than what it said.
        member.held = 0;
        if (held > 0 && attempt === 0) continue;
        throw new Dispute(
          `it says that this log of ${size} entries does not go on from the ${held} that it has cosigned`,
        );
      }
      if (reply.status !== 200) throw new Error(reasons.get(reply.status) ?? `it answered ${reply.status}`);
      // With a text of its own the answer would be a cosignature over that one, and spoil the note for all who verify it.
      if (/(?:^|\n)\n/.test(reply.text)) throw new Error('it answered with more than cosignatures');
      const [cosigned] = openCosignatures(note + reply.text, [member.witness.key]);
      if (cosigned === undefined) throw new Error('it answered without its cosignature');
      member.held = size;
      return cosigned;
    }
    throw new Error('it answered with another size each time');
  }

  return {
    round,
    state: () => ({
      witnesses: members.map(({ witness, size, cosignedAt, failure, disputes }) => ({
        name: witness.name,
        keyName: `${witness.key.name}+${witness.key.keyId}`,
        url: witness.url,
        state: disputes ? 'disputes' : failure !== '' ? 'failing' : size === null ? 'unasked' : 'ok',
        size,
        cosignedAt,
        failure,
      })),
      size: witnessedSize,
      behindSince,
    }),
  };
}

/** A checkpoint and the lines that were gathered below it. */
type Current = {
  readonly note: string;
  readonly checkpoint: Checkpoint;
  readonly lines: Map<WitnessKey, string>;
  /** How many of them are kept. */
  kept: number;
};

type Member = {
  readonly witness: PolicyWitness;
  /** The size of what it has cosigned, as far as we know. */
  held: number;
  size: number | null;
  cosignedAt: Date | null;
  failure: string;
  disputes: boolean;
  failures: number;
  nextMs: number;
};

/** The witness has seen another history. */
class Dispute extends Error {}

const reasons: ReadonlyMap<number, string> = new Map([
  [403, 'it does not accept the signature of this log: give it the key that countersign audit key prints'],
  [404, 'it does not witness this log: give it the key that countersign audit key prints'],
]);
// The first answer may name its size, the second is to the proof from there; between them somebody may have shown it more.
const maxAttempts = 4;
const firstWaitMs = 1_000;
const maxWaitMs = 60_000;
