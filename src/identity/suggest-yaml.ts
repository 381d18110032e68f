import { createHash } from 'node:crypto';
import { parsePolicy, policyApiVersions, policyKind } from '../authz/parse.ts';
import { MeshError } from '../errors.ts';
import { kubernetesNames, type SpiffeId } from '../spiffe/id.ts';
import { readDocuments } from '../yaml.ts';
import type { Kept, NarrowedCall, SeenOperation } from './suggest-rules.ts';

/** What a suggested policy is written of. */
export type SuggestionParts = {
  readonly id: SpiffeId;
  readonly namespace: string;
  /** Labels that only this service has. */
  readonly selector: readonly (readonly [name: string, value: string])[];
  /** Policies in whose place it would stand. */
  readonly replaces: readonly string[];
  readonly left: readonly { readonly calls: number; readonly why: string }[];
  readonly since: Date | null;
  readonly until: Date;
  /** By the rules in force that allow the calls now. */
  readonly seen: readonly (readonly [rule: string, calls: readonly NarrowedCall[]])[];
};

/**
 * Writes the policy: a rule for callers that were seen to do the same, with how many calls each operation rests on as comments.
 * INVARIANT: methods, paths and ports that stand together were all seen together.
 * @returns why not, when it would be no policy
 */
export function writeSuggestion(parts: SuggestionParts): string | { readonly why: string } {
  const { id, namespace, selector, seen, replaces, left, since, until } = parts;
  const rules = seen.flatMap(([rule, calls]) => rulesOf(rule, calls));
  const total = seen.reduce((sum, [, calls]) => calls.reduce((all, one) => all + one.calls, sum), 0);
  const text = [
    `# ${id.text}`,
    `# suggested from ${total} recorded calls from ${since?.toISOString() ?? 'the beginning'} to ${until.toISOString()}; nothing has been applied`,
    ...(replaces.length === 0
      ? []
      : [`# it allows less only once these do not apply to the service: ${replaces.join(', ')}`]),
    ...left.map(({ calls, why }) => `# not in it: ${calls} calls: ${why}`),
    `apiVersion: ${policyApiVersions[0]}`,
    `kind: ${policyKind}`,
    'metadata:',
    `  name: ${nameOf(id)}`,
    `  namespace: ${quoted(namespace)}`,
    'spec:',
    '  selector:',
    '    matchLabels:',
    ...selector.map(([name, value]) => `      ${quoted(name)}: ${quoted(value)}`),
    '  action: ALLOW',
    '  rules:',
    ...rules.flatMap(linesOf),
    '',
  ].join('\n');
  return checked(text);
}

/** INVARIANT: nobody is told of a policy that cannot be applied. */
function checked(text: string): string | { readonly why: string } {
  try {
    for (const document of readDocuments({ file: 'suggestion', text })) parsePolicy(document);
    return text;
  } catch (error) {
    if (error instanceof MeshError) return { why: `it would be no policy: ${error.message}` };
    throw error;
  }
}

type Operation = {
  readonly methods: readonly string[];
  readonly ports: readonly number[];
  readonly paths: readonly string[];
  readonly kept: readonly Kept[];
  calls: number;
  lastMs: number;
};
type SuggestedRule = {
  readonly of: string;
  readonly callers: string[];
  readonly from: NarrowedCall['from'];
  readonly when: NarrowedCall['when'];
  readonly operations: readonly Operation[];
};

/** Callers that do the same under the same conditions share a rule. */
function rulesOf(of: string, calls: readonly NarrowedCall[]): readonly SuggestedRule[] {
  const byCaller = groupBy(calls, ({ caller, from, when }) => JSON.stringify([caller, from, when]));
  const rules = new Map<string, SuggestedRule>();
  for (const some of byCaller.values()) {
    const [first] = some;
    if (first === undefined) continue;
    const { caller, from, when } = first;
    const operations = operationsOf(some);
    const key = JSON.stringify([
      from,
      when,
      operations.map(({ methods, ports, paths, kept }) => [methods, ports, paths, kept]),
    ]);
    const known = rules.get(key);
    if (known === undefined) rules.set(key, { of, callers: [caller], from, when, operations });
    else {
      known.callers.push(caller);
      operations.forEach(({ calls: count, lastMs }, i) => {
        const operation = known.operations[i];
        if (operation === undefined) return;
        operation.calls += count;
        operation.lastMs = Math.max(operation.lastMs, lastMs);
      });
    }
  }
  for (const { callers } of rules.values()) callers.sort();
  return [...rules.values()].sort((a, b) => ((a.callers[0] ?? '') < (b.callers[0] ?? '') ? -1 : 1));
}

type One = SeenOperation & { readonly calls: number; readonly lastMs: number };

function operationsOf(calls: readonly NarrowedCall[]): readonly Operation[] {
  const all = calls.flatMap(({ to, calls: count, lastMs }) =>
    to.map((one): One => ({ ...one, calls: count, lastMs })),
  );
  const ones = [
    ...groupBy(all, ({ kept, port, method, isAnyPath }) =>
      JSON.stringify([kept, port, method, isAnyPath]),
    ).values(),
  ].flatMap(folded);
  // What is put together differs in one thing alone, so nothing is in it that was not seen.
  const byMethod = [
    ...groupBy(ones, ({ kept, port, path, method }) =>
      JSON.stringify([kept, port, path, method === null]),
    ).values(),
  ].map((some) => joined(some.map(operationOf)));
  const byPath = [
    ...groupBy(byMethod, ({ kept, ports, methods }) => JSON.stringify([kept, ports, methods])).values(),
  ].flatMap((some) => {
    const open = some.filter(({ paths }) => paths.length === 0);
    const named = some.filter(({ paths }) => paths.length > 0);
    return [open, named].filter((these) => these.length > 0).map(joined);
  });
  const byPort = groupBy(byPath, ({ kept, methods, paths, ports }) =>
    JSON.stringify([kept, methods, paths, ports.length === 0]),
  );
  return [...byPort.values()].map(joined).sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
}

/** Of many paths that were told by themselves none is named: then all stand that the rule lets pass. */
function folded(some: readonly One[]): readonly One[] {
  const paths = new Set(some.map(({ path }) => path));
  const isAnyPath = some.every((one) => one.isAnyPath);
  return paths.size <= maxPaths || !isAnyPath ? some : some.map((one) => ({ ...one, path: null }));
}

function operationOf({ method, port, path, kept, calls, lastMs }: One): Operation {
  return {
    methods: method === null ? [] : [method],
    ports: port === 0 ? [] : [port],
    paths: path === null ? [] : [path],
    ...{ kept, calls, lastMs },
  };
}

function joined(some: readonly Operation[]): Operation {
  const sorted = <T extends string | number>(of: (one: Operation) => readonly T[]): readonly T[] =>
    [...new Set(some.flatMap(of))].sort((a, b) => (a < b ? -1 : 1));
  return {
    methods: sorted(({ methods }) => methods),
    ports: sorted(({ ports }) => ports),
    paths: sorted(({ paths }) => paths),
    kept: some[0]?.kept ?? [],
    calls: some.reduce((sum, { calls }) => sum + calls, 0),
    lastMs: Math.max(...some.map(({ lastMs }) => lastMs)),
  };
}

function sortKey({ methods, ports, paths, kept }: Operation): string {
  return JSON.stringify([paths, methods, ports, kept]);
}

function linesOf({ of, callers, from, when, operations }: SuggestedRule): readonly string[] {
  const principals = `principals: ${list(callers)}`;
  const isBare = (operation: Operation): boolean =>
    operation.methods.length + operation.ports.length + operation.paths.length + operation.kept.length === 0;
  return [
    `    # as ${of} allows`,
    '    - from:',
    ...from.flatMap((kept) => ['        - source:', `            ${principals}`, ...kept.map(fieldLine)]),
    ...(operations.some(isBare) ? [`      # ${restsOn(joined(operations))}; its port is not told`] : []),
    ...(operations.some(isBare)
      ? []
      : [
          '      to:',
          ...operations.flatMap((operation) => [
            `        # ${restsOn(operation)}`,
            '        - operation:',
            ...(operation.methods.length === 0 ? [] : [`            methods: ${list(operation.methods)}`]),
            ...(operation.paths.length === 0 ? [] : [`            paths: ${list(operation.paths)}`]),
            ...(operation.ports.length === 0
              ? []
              : [`            ports: ${list(operation.ports.map(String))}`]),
            ...operation.kept.map(fieldLine),
          ]),
        ]),
    ...(when.length === 0
      ? []
      : [
          '      when:',
          ...when.flatMap(([field, values]) => {
            const isNegated = field.endsWith(' notValues');
            const key = isNegated ? field.slice(0, -' notValues'.length) : field;
            return [
              `        - key: ${quoted(key)}`,
              `          ${isNegated ? 'notValues' : 'values'}: ${list(values)}`,
            ];
          }),
        ]),
  ];
}

function restsOn({ calls, lastMs }: Operation): string {
  return `${calls} ${calls === 1 ? 'call' : 'calls'}, the last at ${new Date(lastMs).toISOString()}`;
}

function fieldLine([field, values]: Kept): string {
  return `            ${field}: ${list(values)}`;
}

/** `suggested-<account>`; the same account has the same name. */
function nameOf(id: SpiffeId): string {
  const account = kubernetesNames(id)?.serviceAccount ?? '';
  const plain = account
    .toLowerCase()
    .replace(/[^a-z0-9-]/g, '-')
    .slice(0, 50);
  const mark = createHash('sha256').update(account).digest('hex').slice(0, 8);
  return quoted(plain === account ? `suggested-${plain}` : `suggested-${plain}-${mark}`);
}

function groupBy<T>(all: readonly T[], keyOf: (one: T) => string): ReadonlyMap<string, readonly T[]> {
  return Map.groupBy(all, keyOf);
}

function list(values: readonly string[]): string {
  return `[${values.map(quoted).join(', ')}]`;
}

/** JSON strings are YAML. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

const maxPaths = 16;
