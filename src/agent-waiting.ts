import { dirname } from 'node:path';
import type { ServiceDefinition } from '@grpc/grpc-js';
import type { AgentConfig } from './agent-config.ts';
import { MeshError } from './errors.ts';
import { guardStream, guardUnary } from './grpc/guard.ts';
import { type GrpcService, startGrpcListener } from './grpc/listener.ts';
import type { Log } from './log.ts';
import { makeDirectory } from './store/key-files.ts';
import { AggregatedDiscoveryServiceService } from './wire/ads.ts';
import { AuthorizationService } from './wire/authz.ts';
import { SecretDiscoveryServiceService } from './wire/sds.ts';
import { SigningService } from './wire/sign.ts';
import { SpiffeWorkloadAPIService } from './wire/workload.ts';

/**
 * Opens the workload socket of an agent that has nothing to serve yet: every call on it is answered, with UNAVAILABLE, so
 * that whoever asks knows to come back, and is not left to guess why there is no socket. What is denied stays denied.
 * @returns what closes it, and frees the path
 * @throws MeshError `socket_in_use`, `socket_path_too_long`, `socket_path_unsafe`
 */
export async function openWaitingDoor(
  { workloadSocket }: Pick<AgentConfig, 'workloadSocket'>,
  log: Log,
): Promise<() => Promise<void>> {
  makeDirectory(dirname(workloadSocket), 0o755);
  const listener = await startGrpcListener({
    path: workloadSocket,
    mode: 0o666,
    services: [
      SecretDiscoveryServiceService,
      AggregatedDiscoveryServiceService,
      SigningService,
      AuthorizationService,
      SpiffeWorkloadAPIService,
    ].map(unavailable),
    log: (message, detail) => log.warn(detail, message),
  });
  return () => listener.close(0);
}

function unavailable(service: object): GrpcService {
  const methods = Object.entries(service as ServiceDefinition);
  // Nothing that is sent here is looked at.
  const definition = methods.map(([name, method]) => [name, { ...method, requestDeserialize: () => ({}) }]);
  const implementation = methods.map(([name, { requestStream, responseStream }]) => [
    name,
    requestStream || responseStream ? guardStream(refuse) : guardUnary(refuse),
  ]);
  return {
    definition: Object.fromEntries(definition) as ServiceDefinition,
    implementation: Object.fromEntries(implementation) as GrpcService['implementation'],
  };
}

function refuse(): Promise<never> {
  return Promise.reject(
    new MeshError('credentials_pending', 'this agent waits for its server, and has nothing to serve yet'),
  );
}
