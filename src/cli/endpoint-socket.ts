import { MeshError, quote } from '../errors.ts';

/**
 * The path in `SPIFFE_ENDPOINT_SOCKET`, as SPIFFE libraries read it.
 * @returns undefined when it is not set
 * @throws MeshError `config_invalid` when it names anything but a Unix socket by an absolute path
 * @see SPIFFE Workload Endpoint, section 4
 */
export function endpointSocket(
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const value = environment[endpointVariable];
  if (value === undefined || value === '') return undefined;
  const path = /^unix:(?:\/\/)?(\/[^/?#][^?#]*)$/.exec(value)?.[1];
  if (path !== undefined) return path;
  throw new MeshError(
    'config_invalid',
    `${endpointVariable} is ${quote(value)}, which names no Unix socket`,
    {
      fix: 'write unix:///absolute/path, or use --workload-socket',
    },
  );
}

const endpointVariable = 'SPIFFE_ENDPOINT_SOCKET';
