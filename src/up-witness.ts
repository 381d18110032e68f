import { createCosigner, type Cosigner } from './audit/cosignature.ts';
import { createWitness } from './audit/witness.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { MeshError, publicError, quote } from './errors.ts';
import type { WitnessDoorPorts } from './http/witness-door.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';
import { openSealedEd25519 } from './up-audit-key.ts';
import type { KeyParts } from './up-keys.ts';

/**
 * Opens the witness of the logs that are configured; null when none is. Its key is made on first use, and sealed as the
 * others are.
 * @throws MeshError `config_invalid` when its name cannot be one, is another than the first use fixed, or nobody could
 *   reach it; `key_passphrase_wrong`, `key_envelope_invalid`, `file_missing`, `file_permissions`, `authority_invalid`
 */
export async function openWitness(
  parts: KeyParts & {
    readonly config: Pick<Config, 'witnessLogs' | 'witnessName' | 'trustAddress'>;
    readonly store: Store;
    readonly clock: Clock;
    readonly log: Log;
  },
): Promise<WitnessDoorPorts | null> {
  const { config, store, clock, log } = parts;
  if (config.witnessLogs.length === 0) return null;
  if (config.trustAddress === null) {
    throw new MeshError(
      'config_invalid',
      'witnessLogs is set, and logs come to the public door, which is off',
      {
        fix: 'set trustAddress',
      },
    );
  }
  const cosigner = await openCosigner(parts);
  // Whoever has both notes may show them as often as the door lets them: the first proof is kept, and told, alone.
  const caught = new Set<string>();
  const witness = createWitness({
    logs: config.witnessLogs,
    cosigner,
    held: store.heldCheckpoint,
    keep: store.keepHeld,
    reportFork: (fork) => {
      if (caught.has(fork.origin)) return;
      caught.add(fork.origin);
      log.error(fork, 'a log that is witnessed has signed two histories: both checkpoints are kept');
      store.keepFork(fork, clock.now()).catch((error: unknown) => {
        caught.delete(fork.origin);
        log.error(publicError(error), 'the proof could not be kept');
      });
    },
    clock,
  });
  return { ...witness, heldCheckpoints: store.heldCheckpoints };
}

async function openCosigner(
  parts: KeyParts & {
    readonly config: Pick<Config, 'witnessName'>;
    readonly store: Pick<Store, 'readMeta' | 'commitMeta'>;
  },
): Promise<Cosigner> {
  const { config, store, trustDomain } = parts;
  const known = await store.readMeta('witness_verifier_key');
  const name = known?.slice(0, known.indexOf('+')) ?? config.witnessName ?? `${trustDomain.name}/witness`;
  if (config.witnessName !== null && config.witnessName !== name) {
    throw new MeshError('config_invalid', `witnessName: this witness is called ${quote(name)}`, {
      fix: `leave witnessName out, or set it to ${name}: whoever believes the witness knows it by that name`,
    });
  }
  if (Buffer.byteLength(name) > maxNameBytes) {
    throw new MeshError('config_invalid', `${quote(name)} is too long to name a witness`, {
      fix: 'set witnessName to 1 to 255 bytes without spaces and "+"',
    });
  }
  const named = await store.readMeta('witness_key');
  const { key, keyId } = await openSealedEd25519(parts, named);
  const cosigner = createCosigner(name, key);
  if (known !== null && cosigner.verifierKey !== known) {
    throw new MeshError('authority_invalid', `the sealed key of the witness ${quote(name)} is another one`, {
      fix: 'restore it from a backup',
    });
  }
  if (named === null) await store.commitMeta('witness_key', keyId, []);
  if (known === null) await store.commitMeta('witness_verifier_key', cosigner.verifierKey, []);
  return cosigner;
}

const maxNameBytes = 255;
