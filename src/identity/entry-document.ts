import type { YamlDocument } from '../yaml.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import type { EntryInput } from './entry.ts';
import type { LocateField } from './entry-parse.ts';

/** What a document must say of itself to be a registration entry. */
export const entryApiVersion = 'countersign.dev/v1';
export const entryKind = 'RegistrationEntry';

/** An entry as its author wrote it, and where each of its fields stands. */
export type EntrySource = { readonly input: EntryInput; readonly locate: LocateField };

/**
 * Reads a registration entry; `parseEntry` checks the values.
 * @throws MeshError `document_field_*`, `document_kind_unknown`, each with its place
 */
export function readEntryDocument(document: YamlDocument): EntrySource {
  const root = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  if (document.apiVersion !== entryApiVersion) {
    throw root
      .required('apiVersion')
      .error('document_kind_unknown', `is not ${entryApiVersion}`, `write apiVersion: ${entryApiVersion}`);
  }
  const metadata = root.required('metadata').mapping(['name', 'labels']);
  const spec = root
    .required('spec')
    .mapping(['spiffeId', 'selectors', 'ttlSeconds', 'dnsNames', 'hint', 'expiresAt', 'nodes']);
  const input: EntryInput = {
    id: metadata.required('name').string(),
    spiffeId: spec.required('spiffeId').string(),
    selectors: strings(spec.required('selectors')),
    ...given('ttlSeconds', spec, (node) => node.integer()),
    ...given('dnsNames', spec, strings),
    ...given('labels', metadata, labels),
    ...given('hint', spec, (node) => node.string()),
    ...given('expiresAt', spec, (node) => node.string()),
    ...given('nodes', spec, strings),
  };
  const locate: LocateField = (field, index) => {
    const node =
      field === 'id' ? metadata.optional('name') : (metadata.optional(field) ?? spec.optional(field));
    const item =
      index === undefined || node === undefined || field === 'labels' ? node : node.sequence()[index];
    return (item ?? node ?? document.root).place;
  };
  return { input, locate };
}

function given<K extends keyof EntryInput>(
  name: K,
  mapping: YamlMapping,
  read: (node: YamlNode) => NonNullable<EntryInput[K]>,
): Partial<Pick<EntryInput, K>> {
  const node = mapping.optional(name);
  return node === undefined ? {} : ({ [name]: read(node) } as unknown as Pick<EntryInput, K>);
}

function strings(node: YamlNode): readonly string[] {
  return node.sequence().map((item) => item.string());
}

function labels(node: YamlNode): Readonly<Record<string, string>> {
  return Object.fromEntries(node.entries().map(({ key, value }) => [key, value.string()]));
}
