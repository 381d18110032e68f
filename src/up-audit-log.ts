import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import type { WitnessDoorPorts } from './http/witness-door.ts';
import type { WitnessReport } from './http/witness-report.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';
import { signAuditLog } from './up-audit-key.ts';
import type { KeyParts } from './up-keys.ts';
import { openWitness } from './up-witness.ts';
import { openWitnesses } from './up-witnesses.ts';

/** The audit log of a running authority, its witnesses, and what it witnesses itself. */
export type AuditLog = {
  /** Null when no log of others is witnessed. */
  readonly witness: WitnessDoorPorts | null;
  readonly report: () => Promise<WitnessReport>;
  /** For the judgement of health; null when nobody is configured to cosign. */
  readonly trouble: () => WitnessTrouble | null;
  readonly close: () => Promise<void>;
};

/** How far the word of witnesses is behind the log. */
export type WitnessTrouble = {
  /** Witnesses that have seen another history. */
  readonly disputing: number;
  /** How many there are in all. */
  readonly count: number;
  /** Since when the latest checkpoint has no quorum; null while it has. */
  readonly behindSince: Date | null;
  /** Entries of the latest that has one. */
  readonly size: number | null;
};

/**
 * Has the log signed from now on, and asks its witnesses; opens the witness that this server is of others.
 * @throws MeshError of whichever part could not be opened
 */
export async function openAuditLog(
  parts: KeyParts & {
    readonly config: Config;
    readonly store: Store;
    readonly clock: Clock;
    readonly log: Log;
  },
): Promise<AuditLog> {
  const { config, store } = parts;
  await signAuditLog({ ...parts, auditOrigin: config.auditOrigin });
  const witness = await openWitness(parts);
  const witnesses = await openWitnesses(parts);
  return {
    witness,
    report: async () => ({
      cosigned: witnesses?.state() ?? null,
      witness: witness === null ? null : await ownReport(config, store),
    }),
    trouble: () => {
      if (witnesses === null) return null;
      const { witnesses: all, behindSince, size } = witnesses.state();
      const disputing = all.filter(({ state }) => state === 'disputes').length;
      return { disputing, count: all.length, behindSince, size };
    },
    close: async () => witnesses?.close(),
  };
}

async function ownReport(
  { witnessLogs }: Pick<Config, 'witnessLogs'>,
  store: Pick<Store, 'heldCheckpoints' | 'forks' | 'readMeta'>,
): Promise<NonNullable<WitnessReport['witness']>> {
  const [held, forks, verifierKey] = await Promise.all([
    store.heldCheckpoints(),
    store.forks(),
    store.readMeta('witness_verifier_key'),
  ]);
  const origins = new Set([...witnessLogs.map(({ name }) => name), ...held.map(({ origin }) => origin)]);
  return {
    verifierKey: verifierKey ?? '',
    logs: [...origins].sort().map((origin) => {
      const last = held.find((one) => one.origin === origin);
      const { seenAt, held: first, other } = forks.find((one) => one.origin === origin) ?? {};
      return {
        origin,
        size: last?.size ?? null,
        cosignedAt: last?.cosignedAt ?? null,
        fork:
          seenAt === undefined || first === undefined || other === undefined
            ? null
            : { seenAt, held: first, other },
      };
    }),
  };
}
