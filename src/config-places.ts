import { homedir } from 'node:os';
import { join, resolve } from 'node:path';

/** Who the defaults are for. */
export type PlaceSources = {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly isRoot: boolean;
};

/** Where data lives when nothing says otherwise. */
export function defaultDataDirectory(sources: PlaceSources): string {
  if (sources.isRoot) return '/var/lib/countersign';
  const state = xdgDirectory(sources.environment['XDG_STATE_HOME']) ?? join(homedir(), '.local', 'state');
  return join(state, 'countersign');
}

/**
 * Where sockets live when nothing says otherwise. An authority with a data directory of its own choice keeps its
 * sockets beside that data, so that two of them never meet.
 */
export function defaultRunDirectory(sources: PlaceSources, dataDir: string): string {
  if (resolve(dataDir) !== resolve(defaultDataDirectory(sources))) return `${resolve(dataDir)}.run`;
  if (sources.isRoot) return '/run/countersign';
  const runtime = xdgDirectory(sources.environment['XDG_RUNTIME_DIR']);
  return runtime === undefined ? `${resolve(dataDir)}.run` : join(runtime, 'countersign');
}

/** An empty or relative path is to be ignored (XDG Base Directory Specification): it would move with the caller. */
function xdgDirectory(path: string | undefined): string | undefined {
  return path?.startsWith('/') === true ? path : undefined;
}
