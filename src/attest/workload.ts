import type { Clock } from '../clock.ts';
import type { Attest } from '../identity/evidence.ts';
import type { SelectorKind } from '../identity/selector.ts';
import { createAncestorSource } from './ancestors.ts';
import { createAttestor } from './attestor.ts';
import { createDockerSource } from './docker.ts';
import { createDigestSource } from './executable-digest.ts';
import { createKubelet } from './kubelet.ts';
import { createKubernetesSource } from './kubernetes.ts';
import { createPodBook } from './pod-book.ts';
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
};

/**
 * The attestor of the processes of this machine.
 * @throws MeshError (from the attestor) `attestation_failed`
 */
export function createWorkloadAttestor(options: WorkloadAttestorOptions): Attest {
  const { kubelet, dockerSocket, wanted, clock, warn } = options;
  return createAttestor({
    unix: createUnixAttestor({ warn }),
    sources: [
      createSystemdSource(),
      createAncestorSource(),
      createDigestSource({ clock, warn: warnOnce(warn) }),
      ...(kubelet === null ? [] : [createKubernetesSource(createPodBook(createKubelet(kubelet), clock))]),
      ...(dockerSocket === null ? [] : [createDockerSource({ socketPath: dockerSocket, clock })]),
    ],
    wanted,
    clock,
    warn: (source, why) => warn(`no selectors from the ${source}: ${why}`),
  });
}
