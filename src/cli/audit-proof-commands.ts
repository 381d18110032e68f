import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import type { Checkpoint } from '../audit/checkpoint.ts';
import { parseWitnessKey } from '../audit/cosignature.ts';
import { leafHash } from '../audit/leaf.ts';
import type { LogCensus } from '../audit/log-gaps.ts';
import { parseVerifierKey } from '../audit/note.ts';
import { parseTlogProof, verifyTlogProof } from '../audit/tlog-proof.ts';
import { type ReadTile, verifyLog } from '../audit/verify-log.ts';
import { MeshError, quote } from '../errors.ts';
import type { EntryProofView } from '../http/log-routes.ts';
import type { WitnessReport } from '../http/witness-report.ts';
import { type ProvenIssuance, verifyIssuanceProof } from '../identity/issuance-proof.ts';
import { decodePem } from '../spiffe/pem.ts';
import {
  checkCopyOptions,
  checkRecordOptions,
  exportRecords,
  type RecordOptions,
  recordOptions,
} from './audit-export-records.ts';
import { directoryLog, keepEvidence, openExport, saveCheckpoint, serverLog } from './audit-source.ts';
import { type OpenedCheckpoint, readTrust, type TrustOptions, trustOptions } from './audit-trust.ts';
import { witnessesCommand } from './audit-witness-command.ts';
import { globalOptions } from './global-options.ts';
import { examples } from './help.ts';
import { writeNewFile } from './new-file.ts';
import { readText } from './read-text.ts';
import { clientOf, print, type Session } from './session.ts';
import { count, formatPairs, printable, printableJson, printableLines } from './text.ts';

/** `countersign audit verify|export|prove|key|witnesses`. */
export function auditProofCommands(session: Session): readonly Command[] {
  return [
    verifyCommand(session),
    exportCommand(session),
    proveCommand(session),
    keyCommand(session),
    witnessesCommand(session),
  ];
}

type VerifyOptions = TrustOptions & {
  readonly since?: string;
  readonly save?: string;
  readonly proof?: string;
  readonly leaf?: string;
  readonly certificate?: string;
};

function verifyCommand(session: Session): Command {
  const verify = new Command('verify');
  for (const option of trustOptions()) verify.addOption(option);
  return verify
    .description('prove that the log is what its checkpoint says; exits 1 and names the entry when it is not')
    .argument('[directory]', 'an export; the log of the server when left out')
    .option('--key <key>', 'the verifier key that you trust, or a file with it: audit key prints it')
    .option('--since <file>', 'an older checkpoint: nothing of what it covers may have been changed or lost')
    .option('--save <file>', 'keep the checkpoint, once it is proven, for the next --since')
    .option('--proof <file>', 'verify the proof of one entry instead, which audit prove wrote')
    .option('--leaf <file>', 'the exact bytes of that entry, when the proof does not hold it')
    .option('--certificate <file>', 'the certificate, PEM, whose issuance that entry has to be')
    .addHelpText(
      'after',
      examples(
        'audit verify --key log.key',
        'audit verify --key log.key --save checkpoint.monday',
        'audit verify --key log.key --since checkpoint.monday',
        'audit verify ./export --key log.key',
        'audit verify --policy trust.tlog-policy',
        'audit verify --proof 300.tlog-proof --key log.key',
        'audit verify --proof svid.tlog-proof --certificate svid.pem --key log.key',
      ),
    )
    .action(async (directory: string | undefined, options: VerifyOptions, command: Command) => {
      if (options.proof !== undefined) return verifyProof(session, command, directory, options);
      if (options.leaf !== undefined) throw usage('--leaf goes with --proof');
      if (options.certificate !== undefined) throw usage('--certificate goes with --proof');
      refuseToForget(options);
      const client = directory === undefined ? clientOf(session, command) : undefined;
      const trust = await readTrust(session, options, client);
      const log = client === undefined ? directoryLog(directory ?? '') : serverLog(client, trust.isWitnessed);
      const note = await log.checkpoint();
      const opened = trust.open(note);
      const since =
        options.since === undefined ? null : trust.openEarlier(readText(options.since, options.since));
      if (client !== undefined && trust.isWitnessed) refuseBehind(opened.checkpoint, since);
      const proven = verifyLog(opened.checkpoint, log.read, since, undefined, log.readRemains);
      const census = await proven.catch(keepingEvidence(session, options.save ?? options.since ?? '', note));
      if (options.save !== undefined) saveCheckpoint(options.save, note);
      report(session, command, opened, since, census);
    });
}

function exportCommand(session: Session): Command {
  const exporting = new Command('export');
  for (const option of trustOptions()) exporting.addOption(option);
  const command = exporting
    .description(
      'copy the log into a directory that others can verify, and prove it on the way; or write records in a format of others',
    )
    .argument(
      '[directory]',
      'it gets checkpoint and tile/, as c2sp.org/tlog-tiles has them; again adds what is new',
    )
    .option('--key <key>', 'the verifier key that you trust, or a file with it')
    .addHelpText(
      'after',
      examples(
        'audit export ./export --key log.key',
        'audit verify ./export --key log.key',
        'audit export --format ocsf --since 1h',
        'audit export --format otlp --to http://127.0.0.1:4318/v1/logs --cursor-file otlp.place --follow',
      ),
    );
  return recordOptions(command).action(
    async (directory: string | undefined, options: TrustOptions & RecordOptions, called: Command) => {
      if (directory === undefined || options.format !== undefined) {
        checkRecordOptions(directory, options.key, options);
        return exportRecords(session, called, options);
      }
      checkCopyOptions(options);
      const client = clientOf(session, called);
      const trust = await readTrust(session, options, client);
      const log = serverLog(client, trust.isWitnessed);
      const made = openExport(directory, log);
      const earlier = await made.before();
      const since = earlier === null ? null : trust.openEarlier(earlier);
      const note = await log.checkpoint();
      const opened = trust.open(note);
      if (trust.isWitnessed) refuseBehind(opened.checkpoint, since);
      const read: ReadTile = made.read;
      const proven = verifyLog(opened.checkpoint, read, since, undefined, made.readRemains);
      const census = await proven
        .catch((error: unknown) => {
          // What is wrong is not kept: it would stand in the way of an export of the right log.
          if (error instanceof MeshError && error.code.startsWith('audit_log_')) made.undo();
          throw error;
        })
        .catch(keepingEvidence(session, join(directory, 'checkpoint'), note));
      made.finish(note);
      report(session, called, opened, since, census, directory);
    },
  );
}

type ProveOptions = { readonly out?: string; readonly witnessed?: boolean };

function proveCommand(session: Session): Command {
  return new Command('prove')
    .description('print the proof that an entry is in the log, for whoever has its key and nothing else')
    .argument('<index>', 'of the entry: audit list shows it', parseIndex)
    .option('--out <file>', 'write it into a new file')
    .option('--witnessed', 'under the latest checkpoint that a quorum of witnesses has cosigned')
    .addHelpText(
      'after',
      examples(
        'audit prove 300 --out 300.tlog-proof',
        'audit prove 300 --witnessed --out 300.tlog-proof',
        'audit prove 300 -o json',
      ),
    )
    .action(async (index: number, { out, witnessed: isWitnessed }: ProveOptions, command: Command) => {
      const client = clientOf(session, command);
      const path = `/v1/audit/proof/${index}`;
      if (globalOptions(command).output === 'json' && out === undefined) {
        const query = isWitnessed === true ? { witnessed: 'true' } : {};
        session.write(`${printableJson(await client.get<EntryProofView>(path, query))}\n`);
        return;
      }
      const proof = plain(
        await client.getText(`${path}?format=tlog-proof${isWitnessed === true ? '&witnessed=true' : ''}`),
      );
      const { index: proven } = parseTlogProof(proof);
      if (proven !== index) {
        throw new MeshError(
          'audit_proof_invalid',
          `the server gave the proof of entry ${proven}, not ${index}`,
          {
            fix: 'is there something between you and the server?',
          },
        );
      }
      if (out === undefined) session.write(proof);
      else writeNewFile(out, proof);
    });
}

function keyCommand(session: Session): Command {
  return new Command('key')
    .description(
      'print the key that verifies the checkpoints of the log; keep it where the server cannot change it',
    )
    .option('--witness', 'that of this server as a witness of other logs instead')
    .addHelpText('after', examples('audit key > log.key', 'audit key --witness'))
    .action(async ({ witness: isWitness }: { readonly witness?: boolean }, command: Command) => {
      if (isWitness === true) return printWitnessKey(session, command);
      const text = plain((await clientOf(session, command).getText('/v1/audit/log/key')).trimEnd());
      const { name, keyId } = parseVerifierKey(text);
      print(session, command, { verifierKey: text, origin: name, keyId }, () => `${text}\n`);
    });
}

/** What cannot be kept is printed: it must not stand in the way of what was found. */
function sayEvidence(session: Session, beside: string, note: string): void {
  try {
    session.say(`kept the other checkpoint in ${printable(keepEvidence(beside, note))}\n`);
  } catch {
    session.say(
      `the other checkpoint could not be kept beside ${printable(beside)}; it is:\n${printableLines(note)}\n`,
    );
  }
}

async function printWitnessKey(session: Session, command: Command): Promise<void> {
  const { witness } = await clientOf(session, command).get<WitnessReport>('/v1/audit/witnesses');
  if (witness === null) {
    throw new MeshError('authority_not_found', 'this server is no witness', {
      fix: 'set witnessLogs to the keys of the logs that it shall witness',
    });
  }
  const { name, keyId } = parseWitnessKey(witness.verifierKey);
  print(
    session,
    command,
    { verifierKey: witness.verifierKey, name, keyId },
    () => `${plain(witness.verifierKey)}\n`,
  );
}

/** Two checkpoints prove that history was rewritten: the one that is not kept for the next time is kept beside. */
function keepingEvidence(session: Session, beside: string, note: string): (error: unknown) => never {
  return (error) => {
    if (error instanceof MeshError && error.code === 'audit_log_forked' && beside !== '') {
      sayEvidence(session, beside, note);
    }
    throw error;
  };
}

/** What witnesses have cosigned may be older than what was kept without them. @throws MeshError `audit_quorum_missing` */
function refuseBehind({ size }: Checkpoint, since: Checkpoint | null): void {
  if (since === null || since.size <= size) return;
  throw new MeshError(
    'audit_quorum_missing',
    `a quorum has cosigned ${size} entries, and the older checkpoint has ${since.size}`,
    { fix: 'wait for the witnesses: countersign audit witnesses says how far they are' },
  );
}

/** INVARIANT: a checkpoint that was kept makes way only for one of a log that is proven to go on from it. */
function refuseToForget({ since, save }: VerifyOptions): void {
  if (save === undefined || !existsSync(save)) return;
  if (since !== undefined && resolve(since) === resolve(save)) return;
  throw new MeshError('file_exists', `${quote(save)} exists, and the log is not held against it`, {
    fix: 'give it as --since too, or keep the new checkpoint under another name',
  });
}

/** What is printed as the server gave it, byte for byte, must not drive the terminal. */
function plain(text: string): string {
  if (printableLines(text) === text) return text;
  throw new MeshError('audit_note_invalid', 'the server answered with control characters', {
    fix: 'is there something between you and the server?',
  });
}

async function verifyProof(
  session: Session,
  command: Command,
  directory: string | undefined,
  options: VerifyOptions,
): Promise<void> {
  const { proof: file = '', leaf: leafFile, certificate, since, save } = options;
  if (directory !== undefined || since !== undefined || save !== undefined)
    throw usage('--proof is verified by itself');
  if (options.key === undefined && options.policy === undefined)
    throw usage('a proof is verified with --key or --policy');
  const trust = await readTrust(session, options, undefined);
  const text = readText(file, file);
  const proof = parseTlogProof(text);
  const { key } = trust.open(proof.checkpoint);
  if (certificate !== undefined) {
    const leaf = leafFile === undefined ? undefined : readLeaf(leafFile);
    printIssuance(session, command, verifyIssuanceProof(text, readLeafCertificate(certificate), key, leaf));
    return;
  }
  const leaf = leafFile === undefined ? proof.extra : readLeaf(leafFile);
  if (leaf === null) throw usage(`${quote(file)} does not hold the entry: give it with --leaf`);
  const { origin, size, root } = verifyTlogProof(proof, leafHash(leaf), key);
  const entry = new TextDecoder().decode(leaf);
  const shown = { origin, index: proof.index, size, root: Buffer.from(root).toString('base64'), entry };
  print(session, command, { verified: true, ...shown }, () =>
    formatPairs([
      ['log', origin],
      ['entry', `${proof.index} of ${size}: proven`],
      ['root', shown.root],
      ['holds', entry],
    ]),
  );
}

function printIssuance(session: Session, command: Command, proven: ProvenIssuance): void {
  const { origin, index, size, entry } = proven;
  const { serial, spiffeId } = JSON.parse(entry) as { readonly serial: string; readonly spiffeId: string };
  const root = Buffer.from(proven.root).toString('base64');
  const shown = { origin, index, size, root, certificate: { serial, spiffeId }, entry };
  print(session, command, { verified: true, ...shown }, () =>
    formatPairs([
      ['log', origin],
      ['certificate', `${spiffeId}, serial ${serial}: its issuance is in the log`],
      ['entry', `${index} of ${size}: proven`],
      ['root', root],
      ['holds', printable(entry)],
    ]),
  );
}

/** The first certificate of a PEM file. */
function readLeafCertificate(file: string): Uint8Array {
  const [leaf = new Uint8Array(0)] = decodePem(readText(file, file), 'CERTIFICATE', {
    maxBytes: maxPemBytes,
  });
  return leaf;
}

function report(
  session: Session,
  command: Command,
  { key, checkpoint: { origin, size, root }, cosignatures }: OpenedCheckpoint,
  since: Checkpoint | null,
  { pruned, prunedRanges }: LogCensus,
  directory?: string,
): void {
  const text = Buffer.from(root).toString('base64');
  const value = {
    verified: true,
    origin,
    size,
    root: text,
    keyId: key.keyId,
    since: since?.size ?? null,
    witnesses: cosignatures.map(({ key: { name, keyId }, at }) => ({ name, keyId, cosignedAt: at })),
    pruned,
    prunedRanges,
    ...(directory === undefined ? {} : { directory }),
  };
  print(session, command, value, () =>
    formatPairs([
      ['log', origin],
      ['checkpoint', `${count(size, 'entry', 'entries')}, signed by ${key.name}+${key.keyId}`],
      ['root', text],
      ...cosignatures.map(
        ({ key: { name, keyId }, at }) => ['witness', `${name}+${keyId} at ${at.toISOString()}`] as const,
      ),
      ['entries', entriesText(size, pruned)],
      ...prunedRanges.map(
        ({ first, last, entries }) =>
          ['gone', `${entries} of ${first} to ${last}, as the log announced`] as const,
      ),
      ...(since === null
        ? []
        : [['since', `the ${count(since.size, 'entry', 'entries')} of then are unchanged`] as const]),
      ...(directory === undefined ? [] : [['written to', printable(directory)] as const]),
    ]),
  );
}

function entriesText(size: number, pruned: number): string {
  if (pruned === 0) return 'all hashed anew: as the checkpoint says';
  return `${size - pruned} hashed anew, ${pruned} proven by their hashes alone: their contents are kept no longer`;
}

function readLeaf(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new MeshError('file_missing', `${quote(file)} cannot be read`, { fix: 'check the path', cause });
  }
}

function parseIndex(text: string): number {
  const index = Number(text);
  if (/^(0|[1-9][0-9]{0,15})$/.test(text) && Number.isSafeInteger(index)) return index;
  throw new InvalidArgumentError('It is not the index of an entry.');
}

function usage(message: string): MeshError {
  return new MeshError('usage', message, { fix: 'see countersign audit verify --help' });
}

const maxPemBytes = 262_144;
