import { loadConfig, type Config } from '../config.ts';
import { defaultDataDirectory } from '../config-places.ts';
import { MeshError } from '../errors.ts';
import { type AdminClient, openAdminClient } from './client.ts';
import type { GlobalOptions } from './global-options.ts';
import type { Session } from './session.ts';

/** Where to look. */
export type CheckPlaces = {
  readonly options: GlobalOptions;
  /** Null where a server elsewhere is asked: nothing of this machine is looked at then. */
  readonly config: Config | null;
  /** The agent of this machine; null where one place is named and that may be either. */
  readonly agentOptions: GlobalOptions | null;
  /** Where the agent of this machine has its data when nothing says otherwise. */
  readonly agentDataDir: string;
};

/** Reads the configuration as a start would. @throws MeshError `config_invalid`, `usage` and of its file */
export function findPlaces(session: Session, options: GlobalOptions): CheckPlaces {
  const { environment } = session;
  const named = options.socket ?? options.dataDir;
  const isElsewhere =
    named === undefined && (options.server ?? environment['COUNTERSIGN_SERVER']) !== undefined;
  const isNamed =
    named !== undefined ||
    options.config !== undefined ||
    ['DATA_DIR', 'ADMIN_SOCKET', 'CONFIG'].some((name) => environment[`COUNTERSIGN_${name}`] !== undefined);
  const config = loadConfig({
    flags: {
      ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }),
      ...(options.socket === undefined ? {} : { adminSocket: options.socket }),
    },
    environment,
    file: options.config ?? null,
    isRoot: session.isRoot,
  });
  const agentDataDir = `${defaultDataDirectory(session)}-agent`;
  return {
    options,
    config: isElsewhere ? null : config,
    agentOptions: isElsewhere || isNamed ? null : { output: options.output, dataDir: agentDataDir },
    agentDataDir,
  };
}

/** What answers `GET /v1/status`, and when it was asked. */
export type Answered = {
  readonly client: AdminClient;
  readonly status: unknown;
  readonly before: Date;
  readonly after: Date;
};

/** Asks for the status. */
export async function askStatus(
  session: Session,
  options: GlobalOptions,
  now: () => Date,
): Promise<Answered | MeshError> {
  try {
    const client = openAdminClient(options, session);
    const before = now();
    const status = await client.get<unknown>('/v1/status');
    return { client, status, before, after: now() };
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
}
