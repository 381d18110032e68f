import { MeshError, type Place, quote } from '../errors.ts';
import { kubernetesNames, SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import {
  type EntryInput,
  maxTtlSeconds,
  minTtlSeconds,
  ownLabels,
  type RegistrationEntry,
  renewOverNetworkLabel,
} from './entry.ts';
import { parseSelector } from './selector.ts';

/** The most of each kind one entry may have. */
export const maxSelectors = 16;
export const maxDnsNames = 16;
export const maxLabels = 32;
export const maxNodes = 64;
const maxHintBytes = 1_024;

/** What an entry inherits from its mesh. */
export type EntryDefaults = { readonly trustDomain: TrustDomain; readonly ttlSeconds: number };

/** Where a field of the author's text stands; `index` is that of an item of a list. */
export type LocateField = (field: keyof EntryInput, index?: number) => Place | undefined;

/**
 * Checks what an author wrote and completes it.
 * @param locate gives errors their place; without it they have none
 * @throws MeshError `entry_invalid`, `entry_label_conflict`, `selector_invalid`, `spiffe_id_*`
 */
export function parseEntry(
  input: EntryInput,
  defaults: EntryDefaults,
  revision: number,
  locate: LocateField = () => undefined,
): RegistrationEntry {
  const at: At = (field, parse, index) => placed(parse, () => locate(field, index));
  const spiffeId = at('spiffeId', () => parseEntryId(input.spiffeId, defaults.trustDomain));
  return {
    id: at('id', () => parseName(input.id)),
    spiffeId,
    selectors: at('selectors', () => parseSelectors(input.selectors, at)),
    ttlSeconds: at('ttlSeconds', () => parseTtl(input.ttlSeconds ?? defaults.ttlSeconds)),
    dnsNames: at('dnsNames', () => parseDnsNames(input.dnsNames ?? [], at)),
    labels: at('labels', () => parseLabels(input.labels ?? {}, spiffeId)),
    hint: at('hint', () => parseHint(input.hint ?? '')),
    expiresAt: at('expiresAt', () => parseExpiry(input.expiresAt ?? null)),
    nodes: at('nodes', () => parseNodes(input.nodes ?? [], at)),
    revision,
  };
}

/** The author's view of an entry: what {@link parseEntry} would read back to the same entry. */
export function formatEntry(entry: RegistrationEntry): Required<EntryInput> {
  return {
    id: entry.id,
    spiffeId: entry.spiffeId.text,
    selectors: entry.selectors.map((selector) => selector.text),
    ttlSeconds: entry.ttlSeconds,
    dnsNames: entry.dnsNames,
    labels: entry.labels,
    hint: entry.hint,
    expiresAt: entry.expiresAt?.toISOString() ?? null,
    nodes: entry.nodes ?? [],
  };
}

/** Whether two entries differ only in the revision that wrote them. */
export function sameEntry(a: RegistrationEntry, b: RegistrationEntry): boolean {
  return JSON.stringify(formatEntry(a)) === JSON.stringify(formatEntry(b));
}

type At = <T>(field: keyof EntryInput, parse: () => T, index?: number) => T;

function placed<T>(parse: () => T, locate: () => Place | undefined): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof MeshError) || error.place !== undefined) throw error;
    const place = locate();
    if (place === undefined) throw error;
    throw new MeshError(error.code, error.message, {
      place,
      ...(error.fix === undefined ? {} : { fix: error.fix }),
    });
  }
}

function parseName(id: string): string {
  if (!/^[a-z0-9][a-z0-9._-]{0,127}$/.test(id)) {
    refuse(
      `entry id ${quote(id)} is not valid`,
      'use 1 to 128 of a-z 0-9 . - _ and begin with a letter or digit',
    );
  }
  if (id.startsWith(reservedIds))
    refuse(`entry id ${quote(id)} is kept for Countersign itself`, 'choose another');
  return id;
}

function parseEntryId(text: string, trustDomain: TrustDomain): SpiffeId {
  const spiffeId = SpiffeId.parseWorkload(text);
  if (!spiffeId.memberOf(trustDomain)) {
    throw new MeshError(
      'spiffe_id_foreign_trust_domain',
      `SPIFFE ID ${quote(text)} is not of the trust domain ${quote(trustDomain.name)}`,
      { fix: `write it as ${trustDomain.id}/...` },
    );
  }
  if (spiffeId.path.startsWith(reservedPath)) {
    refuse(
      `SPIFFE ID ${quote(text)} is kept for Countersign itself`,
      `choose a path outside ${reservedPath}`,
    );
  }
  return spiffeId;
}

function parseSelectors(texts: readonly string[], at: At): RegistrationEntry['selectors'] {
  if (texts.length === 0)
    refuse('an entry needs at least one selector', 'add one, for example unix:uid:1000');
  if (texts.length > maxSelectors)
    refuse(`an entry has at most ${maxSelectors} selectors`, 'split it into several entries');
  const byText = new Map(
    texts.map((text, index) => [text, at('selectors', () => parseSelector(text), index)]),
  );
  return [...byText.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
}

function parseTtl(ttlSeconds: number): number {
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < minTtlSeconds || ttlSeconds > maxTtlSeconds) {
    refuse(
      `ttlSeconds ${quote(String(ttlSeconds))} is not a whole number from ${minTtlSeconds} to ${maxTtlSeconds}`,
      'one hour is 3600',
    );
  }
  return ttlSeconds;
}

function parseDnsNames(names: readonly string[], at: At): readonly string[] {
  if (names.length > maxDnsNames)
    refuse(`an entry has at most ${maxDnsNames} DNS names`, 'split it into several entries');
  for (const [index, name] of names.entries()) {
    if (name.length <= 253 && dnsName.test(name) && !/(?:^|\.)[0-9]+$/.test(name)) continue;
    at(
      'dnsNames',
      () =>
        refuse(
          `DNS name ${quote(name)} is not valid`,
          'use lower-case labels of a-z 0-9 - separated by dots, the last one no number',
        ),
      index,
    );
  }
  return [...new Set(names)].sort();
}

function parseLabels(
  labels: Readonly<Record<string, string>>,
  id: SpiffeId,
): Readonly<Record<string, string>> {
  const names = kubernetesNames(id);
  const entries = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length > maxLabels) refuse(`an entry has at most ${maxLabels} labels`, 'remove some');
  for (const [key, value] of entries) {
    if (!labelKey.test(key))
      refuse(`label ${quote(key)} is not valid`, 'use the form of a Kubernetes label key');
    if (!labelValue.test(value))
      refuse(
        `label ${quote(key)} has the invalid value ${quote(value)}`,
        'use at most 63 of a-z A-Z 0-9 . - _',
      );
    if (key.startsWith(ownLabels) && !(key === renewOverNetworkLabel && value === 'true')) {
      refuse(
        `label ${quote(key)} with the value ${quote(value)} means nothing`,
        `write ${renewOverNetworkLabel}: 'true', or use another prefix than ${ownLabels}`,
      );
    }
    const derived =
      key === 'namespace' ? names?.namespace : key === 'serviceAccount' ? names?.serviceAccount : value;
    if (derived !== value) {
      throw new MeshError(
        'entry_label_conflict',
        `label ${quote(key)} is ${quote(value)}, but the SPIFFE ID ${quote(id.text)} ${derived === undefined ? 'has none' : `says ${quote(derived)}`}`,
        {
          fix: `remove the label: ${key} derives from an ID of the form /ns/<namespace>/sa/<service account>`,
        },
      );
    }
  }
  // Keys come from the author: a null prototype keeps `__proto__` an ordinary name.
  return Object.freeze(
    Object.assign(Object.create(null) as Record<string, string>, Object.fromEntries(entries)),
  );
}

function parseHint(hint: string): string {
  if (Buffer.byteLength(hint) > maxHintBytes)
    refuse(`the hint is longer than ${maxHintBytes} bytes`, 'shorten it');
  if (/[\u0000-\u001f\u007f-\u009f]/.test(hint))
    refuse(`hint ${quote(hint)} has control characters`, 'remove them');
  return hint;
}

function parseExpiry(text: string | null): Date | null {
  if (text === null) return null;
  const time = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,3})?(Z|[+-]\d{2}:\d{2})$/.test(text)
    ? Date.parse(text)
    : Number.NaN;
  if (Number.isNaN(time))
    refuse(`expiresAt ${quote(text)} is not a time`, 'write it as 2027-01-31T00:00:00Z');
  return new Date(time);
}

function parseNodes(texts: readonly string[], at: At): readonly string[] {
  if (texts.length > maxNodes)
    refuse(`an entry names at most ${maxNodes} nodes`, 'write * for every attested node');
  for (const [index, text] of texts.entries()) {
    if (text === '*' || /^(?:node|alias):[a-z0-9][a-z0-9._-]{0,127}$/.test(text)) continue;
    at(
      'nodes',
      () =>
        refuse(
          `${quote(text)} names no node`,
          'write node:<name>, alias:<name>, or * for every attested node',
        ),
      index,
    );
  }
  return [...new Set(texts)].sort();
}

function refuse(message: string, fix: string): never {
  throw new MeshError('entry_invalid', message, { fix });
}

/** Identities of the authority's own services live below this path. */
export const reservedPath = '/countersign/';
export const reservedIds = 'countersign.';
const dnsName = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/;
const labelKey =
  /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const labelValue = /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/;
