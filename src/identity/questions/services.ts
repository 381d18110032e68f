import { quote } from '../../errors.ts';
import type { CurrentMesh } from '../current-mesh.ts';
import { identity, namespace, optional, type Parameter, refuse } from './parameter.ts';
import type { NamedCount } from './ports.ts';

/** Which services a question is about: one, those of a namespace, or those with a label. Nothing given: all. */
export const services = {
  destination: optional('SPIFFE ID of the called service', identity, null),
  namespace: optional('services of one namespace, or of several separated by commas', namespaces, null),
  label: optional('services whose entry carries a label: key=value', label, null),
};

/** As {@link services} were asked for. */
export type ServiceChoice = {
  readonly destination: string | null;
  readonly namespace: readonly string[] | null;
  readonly label: readonly [key: string, value: string] | null;
};

/** Whether a service is one of those asked for; labels and namespaces are those of the entries of today. */
export function choosesService(asked: ServiceChoice, current: CurrentMesh): (destination: string) => boolean {
  const chosen = asked.namespace === null ? null : new Set(asked.namespace);
  const [key, value] = asked.label ?? ['', ''];
  const labelled = new Set<string>();
  if (asked.label !== null) {
    for (const { spiffeId, labels } of current.mesh.entries.values()) {
      if (Object.hasOwn(labels, key) && labels[key] === value) labelled.add(spiffeId.text);
    }
  }
  const namespaceOf = chosen === null ? () => '' : namespacesOf(current);
  return (destination) =>
    (asked.destination === null || destination === asked.destination) &&
    (chosen === null || chosen.has(namespaceOf(destination))) &&
    (asked.label === null || labelled.has(destination));
}

/** The namespace of an identity: by its name, or else as its entry has it; empty for none. */
export function namespacesOf({ mesh }: CurrentMesh): (id: string) => string {
  const known = new Map<string, string>();
  for (const { spiffeId, labels } of mesh.entries.values()) {
    if (Object.hasOwn(labels, 'namespace')) known.set(spiffeId.text, labels['namespace'] ?? '');
  }
  return (id) => namespaceInName(id) ?? known.get(id) ?? '';
}

/** Counts of the services asked for as rows of an answer, which name the last record that was counted and the first. */
export function rowsOfCounts(counts: readonly NamedCount[], isChosen: (destination: string) => boolean) {
  return counts
    .filter(({ of }) => isChosen(of['destination'] ?? ''))
    .map(({ of, count, first, last, firstIndex, lastIndex }) => ({
      index: lastIndex,
      source: of['source'] ?? '',
      destination: of['destination'] ?? '',
      first: first.toISOString(),
      last: last.toISOString(),
      firstIndex,
      count,
      of,
    }));
}

/** In words: `in the namespaces pay, shop`. */
export function serviceWords({ destination, namespace: names, label: of }: ServiceChoice): string {
  const words = [
    destination === null ? '' : `at ${destination}`,
    names === null ? '' : `in ${names.length === 1 ? 'the namespace' : 'the namespaces'} ${names.join(', ')}`,
    of === null ? '' : `with the label ${of.join('=')}`,
  ].filter((word) => word !== '');
  return words.length === 0 ? 'at all services' : words.join(', ');
}

function namespaceInName(id: string): string | undefined {
  return /^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\/[^/]+$/.exec(id)?.[1];
}

function namespaces(text: string, name: string, now: Date): readonly string[] {
  const names = text.split(',', maxNamespaces + 1);
  if (names.length > maxNamespaces) refuse(name, 'names too many', `name at most ${maxNamespaces}`);
  const parse: Parameter<string>['parse'] = namespace;
  return [...new Set(names.map((one) => parse(one.trim(), name, now)))];
}

function label(text: string, name: string): readonly [string, string] {
  const at = text.indexOf('=');
  return at < 1
    ? refuse(name, `${quote(text)} is no label`, 'write key=value')
    : [text.slice(0, at), text.slice(at + 1)];
}

const maxNamespaces = 64;
