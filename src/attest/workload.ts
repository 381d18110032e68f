import type { Clock } from '../clock.ts';
import type { Attest } from '../identity/evidence.ts';
import type { SelectorKind } from '../identity/selector.ts';
import { createAncestorSource } from './ancestors.ts';
import { createAttestor } from './attestor.ts';
import { createDockerSource } from './docker.ts';
import { createDigestSource } from './executable-digest.ts';
import { createKubelet, type FetchPods } from './kubelet.ts';
import { createKubernetesSource } from './kubernetes.ts';
import { createPodBook } from './pod-book.ts';
import type { SourceHealths } from './source-health.ts';
import { createSystemdSource } from './systemd.ts';
import { createUnixAttestor, warnOnce } from './unix.ts';

/** Which sources of selectors are on, besides those that need nothing but the kernel. */
export type WorkloadAttestorOptions = {
  /** Where the kubelet answers, or null for no `k8s:*` selectors. */
  readonly kubelet: { readonly url: URL; readonly tokenFile: string; readonly caFile: string } | null;
  /** The Unix socket of the Docker engine, or null for no `docker:*` selectors. */
  readonly dockerSocket: string | null;
  /** The kinds that entries name now. */
  readonly wanted: () => ReadonlySet<SelectorKind>;
  readonly clock: Clock;
  readonly warn: (message: string) => void;
  /** Where it is noted how the sources fare. */
  readonly healths?: SourceHealths;
};

/**
 * The attestor of the processes of this machine.
 * @throws MeshError (from the attestor) `attestation_failed`
 */
export function createWorkloadAttestor(options: WorkloadAttestorOptions): Attest {
  const { kubelet, dockerSocket, wanted, clock, warn, healths } = options;
  const docker = 'Docker engine';
  const sources = [
    createSystemdSource(),
    createAncestorSource(),
    createDigestSource({ clock, warn: warnOnce(warn) }),
    ...(kubelet === null
      ? []
      : [createKubernetesSource(createPodBook(noted(createKubelet(kubelet), healths), clock))]),
    ...(dockerSocket === null
      ? []
      : [
          createDockerSource({
            socketPath: dockerSocket,
            clock,
            note: (failure) => healths?.note(docker, failure),
          }),
        ]),
  ];
  for (const { name } of sources) {
    healths?.add(
      name,
      name === 'kubelet' ? `${kubelet?.url.origin}` : name === docker ? `${dockerSocket}` : '',
    );
  }
  return createAttestor({
    unix: createUnixAttestor({ warn }),
    sources,
    wanted,
    clock,
    warn: (source, why) => warn(`no selectors from the ${source}: ${why}`),
    // Most callers are in no container, and then the kubelet and the engine are not asked.
    note: (source, failure) => {
      if (source !== 'kubelet' && source !== docker) healths?.note(source, failure);
    },
  });
}

function noted(fetch: FetchPods, healths: SourceHealths | undefined): FetchPods {
  return async (signal) => {
    try {
      const pods = await fetch(signal);
      healths?.note('kubelet', null);
      return pods;
    } catch (error) {
      healths?.note('kubelet', error instanceof Error ? error.message : 'unknown');
      throw error;
    }
  };
}
