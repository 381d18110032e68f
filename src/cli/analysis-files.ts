import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { PolicyGround } from '../authz/analysis/destinations.ts';
import { loadConfig } from '../config.ts';
import { MeshError, quote } from '../errors.ts';
import type { SourceFile } from '../identity/plan.ts';
import type { Analysed } from '../identity/policy-analysis.ts';
import { TrustDomain } from '../spiffe/id.ts';
import { globalOptions } from './global-options.ts';
import { readSources, type Session } from './session.ts';

/**
 * Reads files, and of a directory those that end in `.yaml`, `.yml` or `.json`, in the order of their names.
 * @throws MeshError `file_missing`, `file_permissions`, `document_too_large`; `usage` for a directory without such files
 */
export function readTree(session: Session, paths: readonly string[]): readonly SourceFile[] {
  return readSources(session, paths.flatMap(filesIn));
}

function filesIn(path: string): readonly string[] {
  // What is not there is refused when it is read.
  if (path === '-' || statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [path];
  const names = readdirSync(path).filter((name) => /\.(?:ya?ml|json)$/.test(name));
  if (names.length > 0) return names.sort().map((name) => join(path, name));
  throw new MeshError('usage', `no file of ${quote(path)} ends in .yaml, .yml or .json`, {
    fix: 'check the path',
  });
}

/** Everything that files alone say: no server is asked, and nobody is registered but by them. */
export async function analyseFiles(
  session: Session,
  command: Command,
  files: readonly SourceFile[],
  trustDomain: string | undefined,
): Promise<{ readonly analysed: Analysed; readonly ground: PolicyGround }> {
  // Loaded here, so that commands which ask a server do not wait for the engine to load.
  const [{ readAnalysed }, { finish }] = await Promise.all([
    import('../identity/policy-analysis.ts'),
    import('../authz/steps.ts'),
  ]);
  const { config: file = null } = globalOptions(command);
  const config = loadConfig({ flags: {}, environment: session.environment, file, isRoot: session.isRoot });
  const analysed = finish(readAnalysed(files));
  const workloads = [...analysed.workloads.values()];
  const named = trustDomain === undefined ? config.trustDomain : TrustDomain.parse(trustDomain);
  const ofMesh = named ?? workloads[0]?.id.trustDomain;
  if (ofMesh === undefined) {
    throw new MeshError('usage', 'the trust domain of the mesh is not known: no entry is in the files', {
      fix: 'name it with --trust-domain, or in the configuration',
    });
  }
  const foreign = workloads.find(({ id }) => !id.memberOf(ofMesh));
  // Nothing is ever allowed to such a one: what is said of it would always hold.
  if (foreign !== undefined) {
    throw new MeshError('usage', `${foreign.id.text} is of another trust domain than ${ofMesh.name}`, {
      fix: 'name that of the entries with --trust-domain',
    });
  }
  const { rootNamespace, policyMode: mode } = config;
  return { analysed, ground: { trustDomain: ofMesh, rootNamespace, workloads, mode } };
}

/**
 * Refuses files of another mesh: without entries only the names in them tell, and of a mesh that nobody names much is true
 * that says nothing.
 * @throws MeshError `usage` when principals and trust domains are named, and all of them are of others
 */
export function demandOwnNames(
  all: readonly Analysed[],
  { trustDomain: ofMesh, mode }: Pick<PolicyGround, 'trustDomain' | 'mode'>,
): void {
  // In Istio mode nothing is proven, and `cluster.local` is any mesh.
  if (mode === 'istio' || all.some(({ workloads }) => workloads.size > 0)) return;
  const named = new Set(all.flatMap((one) => [...trustDomainsIn(one)]));
  if (named.size === 0 || named.has(ofMesh.name)) return;
  const others = [...named].sort().slice(0, maxNamed).map(quote).join(', ');
  throw new MeshError(
    'usage',
    `nobody in the files is named of the trust domain ${ofMesh.name}: they name ${others}`,
    // Who has named the right one is not sent to another: what is proven there is of no mesh of theirs.
    { fix: 'correct --trust-domain if it is wrong; if it is right, give an entry of the mesh too' },
  );
}

/** Those that are written out; one with a `*` in it may be any. */
function* trustDomainsIn({ policies, invariants }: Analysed): Generator<string> {
  const rules = [
    ...[...policies.values()].flatMap((policy) => policy.rules),
    ...invariants.map(({ calls }) => calls),
  ];
  for (const { from, when } of rules) {
    for (const { attribute, values } of [...from, ...when].flatMap(({ predicates }) => predicates)) {
      if (attribute !== 'source.principal' && attribute !== 'source.trustDomain') continue;
      for (const value of values) yield* ofValue(value);
    }
  }
  for (const { to } of invariants) {
    for (const match of to.principals) {
      if (match.kind === 'exact' || (match.kind === 'prefix' && match.text.includes('/')))
        yield* ofValue(match.text);
    }
  }
}

function* ofValue(value: string): Generator<string> {
  const [domain = ''] = value.split('/', 1);
  if (!domain.includes('*')) yield domain;
}

const maxNamed = 4;
