import type { Atom } from './atoms.ts';
import type { Draft } from './draft.ts';

/**
 * What calls of a class have in one respect where that is less than their rule says: one value for each kind of values, at
 * most eight.
 */
export type Kind = {
  readonly field: 'principals' | 'methods' | 'paths' | 'hosts' | 'ports' | 'addresses' | 'times';
  readonly values: readonly string[];
  readonly omitted: number;
};

/** The kinds that are left of a dimension; undefined for one of which values are not told. */
export function kindOf(dimension: string, left: readonly Atom[]): Kind | undefined {
  const known = tellers[dimension];
  if (known === undefined || left.length === 0) return undefined;
  const values = [...new Set(left.map(({ patch }) => known.tell(patch)))];
  const shown = values.slice(0, maxValues);
  return { field: known.field, values: shown, omitted: values.length - shown.length };
}

type Teller = { readonly field: Kind['field']; readonly tell: (patch: Partial<Draft>) => string };

// INVARIANT: keys are the dimensions of literals, which no author of policies chooses.
const tellers: Readonly<Partial<Record<string, Teller>>> = {
  caller: { field: 'principals', tell: ({ source }) => source?.principal ?? '' },
  'request.method': { field: 'methods', tell: ({ method = '' }) => method },
  'request.path': { field: 'paths', tell: ({ path = '' }) => path },
  'request.host': {
    field: 'hosts',
    tell: ({ host = '', hostPort = null }) => `${host}${hostPort === null ? '' : `:${hostPort}`}`,
  },
  'destination.port': { field: 'ports', tell: ({ port = 0 }) => (port === 0 ? 'not told' : `${port}`) },
  client: { field: 'addresses', tell: ({ client = 'not told' }) => client },
  time: { field: 'times', tell: ({ atMs = 0 }) => `from ${new Date(atMs).toISOString()}` },
};

const maxValues = 8;
