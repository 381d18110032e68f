import { createGathering, type GatherState } from './audit/gather.ts';
import { parseVerifierKey } from './audit/note.ts';
import { parseWitnessPolicy, type PolicyWitness, type WitnessPolicy } from './audit/witness-policy.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { MeshError, publicError, quote } from './errors.ts';
import type { Log } from './log.ts';
import { readBounded } from './node/kubernetes-call.ts';
import type { Store } from './store/store.ts';
import { parseWitnessUrl, postCheckpoint } from './up-witness-call.ts';

/** The witnesses of our log, as they are asked while the server runs. */
export type OpenWitnesses = {
  readonly state: () => GatherState;
  readonly close: () => Promise<void>;
};

export type WitnessesParts = {
  readonly config: Pick<Config, 'auditWitnessesFile' | 'auditWitnessesCaFile'>;
  readonly store: Pick<
    Store,
    'auditCheckpoint' | 'readMeta' | 'witnessedCheckpoint' | 'keepWitnessed' | 'proveGrowth'
  >;
  readonly clock: Clock;
  readonly log: Log;
};

/**
 * Has witnesses cosign the log from now on, a few seconds after it has grown: nothing waits for them. Null when none is
 * configured. INVARIANT: asking them records nothing, or two logs that witness each other would never rest.
 * @throws MeshError `config_invalid`, `audit_policy_invalid` with the line
 */
export async function openWitnesses(parts: WitnessesParts): Promise<OpenWitnesses | null> {
  const { config, store, clock, log } = parts;
  const { auditWitnessesFile: file, auditWitnessesCaFile: caFile } = config;
  if (file === null) return null;
  const logKey = parseVerifierKey((await store.readMeta('audit_verifier_key')) ?? '');
  const policy = parseWitnessPolicy(await read('auditWitnessesFile', file), file);
  if (policy.logs.length > 0 && !policy.logs.some(({ key }) => isSame(key, logKey))) {
    throw new MeshError('config_invalid', `auditWitnessesFile: ${quote(file)} is not about this log`, {
      fix: 'give it the key that countersign audit key prints, or no log line',
    });
  }
  const urls = readUrls(policy, file);
  if (caFile !== null) await read('auditWitnessesCaFile', caFile);
  const stop = new AbortController();
  const gathering = createGathering({
    policy,
    logKey,
    latest: store.auditCheckpoint,
    kept: store.witnessedCheckpoint,
    keep: store.keepWitnessed,
    proveGrowth: store.proveGrowth,
    ask: async (witness, body) => {
      const url = urls.get(witness);
      if (url === undefined) throw new Error('it has no URL');
      return postCheckpoint({ url, caFile }, body, stop.signal);
    },
    clock,
  });
  const told = new Map<string, string>();
  const asking = askForEver();
  return {
    state: gathering.state,
    close: async () => {
      stop.abort();
      await asking;
    },
  };

  async function askForEver(): Promise<void> {
    let hasFailed = false;
    while (!stop.signal.aborted) {
      try {
        await gathering.round();
        hasFailed = false;
        tellChanges();
      } catch (error) {
        if (!hasFailed && !stop.signal.aborted) {
          log.warn(publicError(error), 'the witnesses of the log cannot be asked');
        }
        hasFailed = true;
      }
      await clock.sleep(roundMs, stop.signal);
    }
  }

  /** Each trouble once, and its end. */
  function tellChanges(): void {
    for (const { name, url, failure, state } of gathering.state().witnesses) {
      if ((told.get(name) ?? '') === failure) continue;
      told.set(name, failure);
      if (stop.signal.aborted) return;
      const detail = { witness: name, url, failure };
      if (state === 'disputes') log.error(detail, 'a witness has seen another history of this log');
      else if (failure !== '') log.warn(detail, 'a witness does not cosign the log');
      else log.info(detail, 'the witness cosigns the log again');
    }
  }
}

function readUrls({ witnesses }: WitnessPolicy, file: string): ReadonlyMap<PolicyWitness, URL> {
  const urls = new Map<PolicyWitness, URL>();
  for (const witness of witnesses) {
    if (witness.url === null) continue;
    try {
      urls.set(witness, parseWitnessUrl(witness.url));
    } catch (cause) {
      throw new MeshError(
        'config_invalid',
        `auditWitnessesFile: the URL ${quote(witness.url)} in ${quote(file)} ${(cause as Error).message}`,
        { fix: 'give the submission prefix of the witness', cause },
      );
    }
  }
  return urls;
}

async function read(option: string, file: string): Promise<string> {
  try {
    return await readBounded(file, maxFileBytes);
  } catch (cause) {
    throw new MeshError('config_invalid', `${option}: ${quote(file)} cannot be read`, {
      fix: 'check the path, its permissions, and that it has at most 256 KiB',
      cause,
    });
  }
}

function isSame(a: { name: string; keyId: string }, b: { name: string; keyId: string }): boolean {
  return a.name === b.name && a.keyId === b.keyId;
}

const roundMs = 2_000;
const maxFileBytes = 262_144;
