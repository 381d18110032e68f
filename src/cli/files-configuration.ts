import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { configApiVersion as apiVersion } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { maxDocumentBytes, readDocuments, type YamlDocument } from '../yaml.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import { findAccount } from './files-account.ts';
import { type Hook, hookSignals } from './files-hook.ts';
import { defaultFiles, type FileContent, fileContents } from './svid-files.ts';

/** One directory of files that is kept up to date. */
export type FilesOutput = {
  /** What lines and metrics call it. */
  readonly name: string;
  /** `default`, or a SPIFFE ID. */
  readonly identity: string;
  /** Absolute. */
  readonly directory: string;
  readonly files: readonly (readonly [FileContent, string])[];
  /** Of the files that hold the key. */
  readonly keyMode: number;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly hook: Hook | null;
  readonly hookTimeoutSeconds: number;
  /** What becomes of the files when the identity is banned. */
  readonly onBan: 'remove' | 'keep';
};

/** All that `countersign agent files` is told by a file. */
export type FilesConfiguration = {
  readonly outputs: readonly FilesOutput[];
  readonly workloadSocket: string | null;
  readonly metricsFile: string | null;
};

export const filesKind = 'FilesConfiguration';

/**
 * Reads the one document of a file. As it names programs to run, only root or this user may be able to write it.
 * @throws MeshError `file_permissions`, `file_missing`, and as {@link parseFilesConfiguration}
 */
export function readFilesConfiguration(file: string, texts: Map<string, string>): FilesConfiguration {
  const text = readTrusted(file);
  texts.set(file, text);
  return parseFilesConfiguration(file, text);
}

/**
 * Parses the text of such a file: one document, 1 to 100 outputs.
 * @throws MeshError `document_*` with the place, `spiffe_id_*`
 */
export function parseFilesConfiguration(file: string, text: string): FilesConfiguration {
  const documents = readDocuments({ file, text });
  const [document, more] = documents;
  if (document === undefined || more !== undefined) {
    throw new MeshError('document_kind_unknown', `${quote(file)} does not hold just one ${filesKind}`, {
      place: { file, line: more?.line ?? 1, column: 1 },
      fix: `write one document with apiVersion: ${apiVersion} and kind: ${filesKind}`,
    });
  }
  return readSpec(document);
}

function readSpec({ apiVersion: version, kind, root }: YamlDocument): FilesConfiguration {
  if (version !== apiVersion || kind !== filesKind) {
    throw root.error(
      'document_kind_unknown',
      `is no ${filesKind}`,
      `begin it with apiVersion: ${apiVersion} and kind: ${filesKind}`,
    );
  }
  const spec = root
    .mapping(['apiVersion', 'kind', 'spec'])
    .required('spec')
    .mapping(['workloadSocket', 'metricsFile', 'outputs']);
  const list = spec.required('outputs');
  const nodes = list.sequence();
  if (nodes.length === 0 || nodes.length > maxOutputs) {
    throw list.error('document_field_value', `must hold 1 to ${maxOutputs} outputs`, 'add an output');
  }
  const outputs = nodes.map(readOutput);
  for (const [index, { name, directory }] of outputs.entries()) {
    const earlier = outputs.slice(0, index);
    const twice = earlier.some((other) => other.name === name)
      ? `name ${quote(name)}`
      : earlier.some((other) => other.directory === directory)
        ? `directory ${quote(directory)}`
        : undefined;
    const node = nodes[index];
    if (twice !== undefined && node !== undefined) {
      throw node.error('document_field_value', `has the ${twice} of another output`, 'choose another');
    }
  }
  return {
    outputs,
    workloadSocket: pathOf(spec, 'workloadSocket'),
    metricsFile: pathOf(spec, 'metricsFile'),
  };
}

function readOutput(node: YamlNode): FilesOutput {
  const output = node.mapping(outputFields);
  const name = output.required('name');
  if (!outputName.test(name.string())) {
    throw name.error('document_field_value', 'is no name', 'use 1 to 63 of a-z, 0-9 and -, such as nginx');
  }
  const directory = output.required('directory');
  const account = accountsOf(
    textOf(output, 'owner'),
    textOf(output, 'group'),
    textOf(output, 'mode'),
    (field, why, fix) => (output.optional(field) ?? node).error('document_field_value', why, fix),
  );
  return {
    name: name.string(),
    identity: identityOf(output.optional('spiffeId')),
    directory: absolute(directory),
    files: filesOf(output.optional('files')),
    ...account,
    hook: hookOf(output),
    hookTimeoutSeconds: timeoutOf(output.optional('hookTimeoutSeconds')),
    onBan: oneOf(output.optional('onBan'), onBans, 'remove'),
  };
}

/** Who gets the files, from the words of a document or of options. */
export function accountsOf(
  owner: string | null,
  group: string | null,
  mode: string | null,
  refuse: (field: 'owner' | 'group' | 'mode', why: string, fix: string) => MeshError,
): Pick<FilesOutput, 'uid' | 'gid' | 'keyMode'> {
  const user = owner === null ? null : findAccount('passwd', owner);
  if (user === undefined) {
    throw refuse('owner', `${quote(owner ?? '')} is no user of this machine`, 'name one, or its number');
  }
  const named = group === null ? null : findAccount('group', group);
  if (named === undefined) {
    throw refuse('group', `${quote(group ?? '')} is no group of this machine`, 'name one, or its number');
  }
  const keyMode = keyModes.get(mode ?? (group === null ? '0600' : '0640'));
  if (keyMode === undefined) {
    throw refuse('mode', `${quote(mode ?? '')} is none that keeps a key`, 'use 0400, 0440, 0600 or 0640');
  }
  return { uid: user?.id ?? null, gid: named?.id ?? user?.gid ?? null, keyMode };
}

/** A name for a file in the directory; none begins with a dot. */
export const fileName = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
export const onBans = ['remove', 'keep'] as const;
export const hookTimeoutBounds = { default: 30, min: 1, max: 600 } as const;

function identityOf(node: YamlNode | undefined): string {
  return node === undefined ? 'default' : SpiffeId.parseWorkload(node.string()).text;
}

function filesOf(node: YamlNode | undefined): FilesOutput['files'] {
  if (node === undefined) return defaultFiles;
  const mapping = node.mapping(fileContents);
  const files = fileContents.flatMap((content) => {
    const name = mapping.optional(content);
    if (name === undefined) return [];
    if (!fileName.test(name.string())) {
      throw name.error('document_field_value', 'is no file name', 'use letters, digits, _, - and dots');
    }
    return [[content, name.string()] as const];
  });
  if (files.length === 0 || new Set(files.map(([, name]) => name)).size !== files.length) {
    throw node.error(
      'document_field_value',
      'must name different files',
      `name any of ${fileContents.join(', ')}`,
    );
  }
  return files;
}

function hookOf(output: YamlMapping): Hook | null {
  const [run, signal] = [output.optional('onChange'), output.optional('signal')];
  if (run !== undefined && signal !== undefined) {
    throw signal.error('document_field_value', 'cannot stand beside onChange', 'keep one of the two');
  }
  if (run !== undefined) {
    const [program, ...args] = run.sequence().map((word) => word.string());
    if (program === undefined || program === '' || [program, ...args].some((word) => word.includes('\0'))) {
      throw run.error('document_field_value', 'names no program', 'write it as [nginx, -s, reload]');
    }
    return { kind: 'run', argv: [program, ...args] };
  }
  if (signal === undefined) return null;
  const fields = signal.mapping(['pidFile', 'name']);
  return {
    kind: 'signal',
    pidFile: absolute(fields.required('pidFile')),
    signal: oneOf(fields.optional('name'), hookSignals, 'HUP'),
  };
}

function timeoutOf(node: YamlNode | undefined): number {
  const { default: usual, min, max } = hookTimeoutBounds;
  const seconds = node?.integer() ?? usual;
  if (node !== undefined && (seconds < min || seconds > max)) {
    throw node.error('document_field_value', `is not from ${min} to ${max}`, 'write it in seconds');
  }
  return seconds;
}

function oneOf<T extends string>(node: YamlNode | undefined, words: readonly T[], usual: T): T {
  if (node === undefined) return usual;
  const found = words.find((word) => word === node.string());
  if (found !== undefined) return found;
  throw node.error('document_field_value', `is not one of ${words.join(', ')}`, `write ${usual}`);
}

function textOf(mapping: YamlMapping, name: string): string | null {
  return mapping.optional(name)?.string() ?? null;
}

function pathOf(mapping: YamlMapping, name: string): string | null {
  const node = mapping.optional(name);
  return node === undefined ? null : absolute(node);
}

function absolute(node: YamlNode): string {
  const path = node.string();
  if (isAbsolute(path) && !path.includes('\0')) return resolve(path);
  throw node.error('document_field_value', 'is no absolute path', 'begin it with /');
}

function readTrusted(file: string): string {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw new MeshError('file_missing', `${quote(file)} cannot be opened`, { fix: 'check the path', cause });
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw unsafe(file, 'is no regular file');
    const isOurs = stats.uid === 0 || stats.uid === process.geteuid?.();
    if (!isOurs || (stats.mode & 0o022) !== 0) throw unsafe(file, 'names programs, and others can write it');
    if (stats.size > maxDocumentBytes) throw unsafe(file, `is larger than ${maxDocumentBytes} bytes`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

function unsafe(file: string, why: string): MeshError {
  return new MeshError('file_permissions', `${quote(file)} ${why}`, {
    fix: `chown root ${file} && chmod go-w ${file}`,
  });
}

const maxOutputs = 100;
const outputName = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const outputFields = [
  ...['name', 'spiffeId', 'directory', 'files', 'owner', 'group', 'mode'],
  ...['onChange', 'signal', 'hookTimeoutSeconds', 'onBan'],
];
const keyModes = new Map([
  ['0400', 0o400],
  ['0440', 0o440],
  ['0600', 0o600],
  ['0640', 0o640],
]);
