import { hash } from 'node:crypto';
import type { Actor } from './audit/event.ts';
import { jwtSchedule, publishedJwtKeys } from './ca/jwt-slot.ts';
import type { Config } from './config.ts';
import { MeshError, publicError, quote } from './errors.ts';
import type { JwtPort, JwtReport, MintOrder } from './http/jwt-report.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import type { RegistrationEntry } from './identity/entry.ts';
import { createJwtIssuer, type IssueJwt } from './identity/jwt-issuer.ts';
import type { ValidateJwt } from './identity/jwt-svid.ts';
import { createJwtValidator } from './identity/jwt-validator.ts';
import { isLive } from './identity/registry.ts';
import type { Log } from './log.ts';
import { hexOf } from './spiffe/der.ts';
import type { JwtBundle } from './spiffe/jwt-bundle.ts';
import type { Store } from './store/store.ts';
import { type JwtKeyParts, type JwtWish, type KeptJwtKeys, openJwtKeys } from './up-jwt-keys.ts';

/** All that this process does with tokens. */
export type JwtPlant = {
  /** Our own bundle. The same value until it changes. */
  readonly bundle: () => JwtBundle;
  /** Calls back when the bundle has changed. */
  readonly onChange: (listener: () => void) => () => void;
  /** Every public key in it: SHA-256 of the SPKI, lower-case hex. */
  readonly keySha256: () => readonly string[];
  readonly mint: IssueJwt;
  readonly validate: ValidateJwt;
  /** For the admin API. */
  readonly port: JwtPort;
  /** Stops what runs by itself. */
  readonly close: () => Promise<void>;
};

export type JwtPlantParts = Omit<JwtKeyParts, 'keyType' | 'store' | 'report'> & {
  readonly store: Store;
  readonly config: Pick<Config, 'jwtTtlSeconds' | 'jwtIssuer' | 'jwtKeyType'>;
  readonly holder: MeshHolder;
  /** The bundles of other trust domains, by name; none when it is left out. */
  readonly foreignBundles?: () => ReadonlyMap<string, JwtBundle>;
  readonly log: Log;
};

/** Opens the JWT keys and keeps them going. @throws MeshError as {@link openJwtKeys} */
export async function openJwt(parts: JwtPlantParts): Promise<JwtPlant> {
  const { store, config, holder, clock, log, trustDomain, randomBytes } = parts;
  const keys = await openJwtKeys({
    ...parts,
    keyType: config.jwtKeyType,
    report: ({ action, keyId, evidence }) =>
      // What was forced or tainted is somebody's to know of; the rest happens every month.
      log[urgent.has(action) ? 'warn' : 'info']({ keyId, evidence }, `JWT key ${action}`),
  });
  const bans = () => holder.current().bans;
  const mint = createJwtIssuer({
    signer: keys.signer,
    mayStillSign: keys.mayStillSign,
    record: store.recordEvents,
    clock,
    isCurrent: ({ id, revision }) => holder.current().registry.entry(id)?.revision === revision,
    bans,
    issuer: config.jwtIssuer,
    ttlSeconds: config.jwtTtlSeconds,
    newJwtId: () => {
      const bytes = randomBytes(16);
      // As a serial it can be banned, and a serial does not begin with a zero octet.
      bytes[0] = (bytes[0] ?? 0) | 0x40;
      return hexOf(bytes);
    },
  });
  const validate = createJwtValidator({
    // INVARIANT: nobody else's bundle takes the place of our own.
    bundles: () => new Map([...(parts.foreignBundles?.() ?? []), [trustDomain.name, keys.bundle()]]),
    bans,
    clock,
  });
  const stop = new AbortController();
  const running = keepGoing(keys, parts, stop.signal);
  return {
    bundle: keys.bundle,
    onChange: keys.onChange,
    keySha256: () => keys.bundle().authorities.map(({ publicKey }) => hash('sha256', publicKey, 'hex')),
    mint,
    validate,
    port: jwtPort(parts, keys, mint, validate),
    close: async () => {
      stop.abort();
      await running;
    },
  };
}

async function keepGoing(keys: KeptJwtKeys, { clock, log }: JwtPlantParts, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    try {
      // One thing at a time; a few are due at once when the process was away for long.
      for (let steps = 0; steps < 4 && (await keys.tick()); steps++);
    } catch (error) {
      log.error(publicError(error), 'the JWT keys could not be rotated');
    }
    await clock.sleep(tickMs, stop);
  }
}

function jwtPort(parts: JwtPlantParts, keys: KeptJwtKeys, mint: IssueJwt, validate: ValidateJwt): JwtPort {
  const step = (wish: JwtWish, actor: Actor): Promise<void> => keys.step(wish, actor);
  return {
    report: async () => {
      // The evidence first: the state after it is at least as new.
      const evidence = await keys.evidence();
      return reportOf(keys, evidence);
    },
    rotate: (actor) => step({ kind: 'rotate' }, actor),
    activate: (force, actor) => step({ kind: 'activate', force }, actor),
    retire: (force, actor) => step({ kind: 'retire', force }, actor),
    taint: (keyId, actor) => step({ kind: 'taint', keyId }, actor),
    owns: (keyId) => keys.state().slots.some((slot) => slot.keyId === keyId),
    bundle: keys.bundle,
    mint: async ({ entry, ...order }, actor) => mint({ ...order, entry: findEntry(parts, entry), actor }),
    validate,
  };
}

function reportOf(keys: KeptJwtKeys, evidence: Awaited<ReturnType<KeptJwtKeys['evidence']>>): JwtReport {
  const state = keys.state();
  return {
    jwtBundleSequence: state.sequence,
    jwtKeys: publishedJwtKeys(state).map(
      ({ keyId, keyType, state: at, publishedAt, activatedAt, stoppedAt }) => ({
        keyId,
        keyType,
        state: at,
        publishedAt,
        activatedAt,
        stoppedAt,
        lastTokenExpiresAt: evidence.lastExpiries.get(keyId) ?? null,
      }),
    ),
    jwtNext: jwtSchedule(state, evidence),
  };
}

function findEntry({ holder, clock }: JwtPlantParts, wanted: MintOrder['entry']): RegistrationEntry {
  const { entries } = holder.current().mesh;
  const found =
    'entryId' in wanted
      ? entries.get(wanted.entryId)
      : [...entries.values()]
          .filter((entry) => entry.spiffeId.text === wanted.spiffeId && isLive(entry, clock.now()))
          .sort((a, b) => (a.id < b.id ? -1 : 1))[0];
  if (found !== undefined) return found;
  const what = 'entryId' in wanted ? `the id ${quote(wanted.entryId)}` : quote(wanted.spiffeId);
  throw new MeshError('entry_not_found', `no entry has ${what}`, {
    fix: 'countersign entry list shows all entries',
  });
}

const urgent: ReadonlySet<string> = new Set(['tainted', 'forced']);
const tickMs = 60_000;
