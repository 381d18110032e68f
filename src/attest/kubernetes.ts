import { containerOf } from './container.ts';
import type { FindContainer } from './pod-book.ts';
import type { ContainerFacts } from './pod-list.ts';
import { type SelectorSource, validSelector } from './source.ts';

/** `k8s:*`: the pod and the container that the kernel says a process is in, as the kubelet describes them. */
export function createKubernetesSource(find: FindContainer): SelectorSource {
  return {
    name: 'kubelet',
    kinds: [
      'k8s:ns',
      'k8s:sa',
      'k8s:pod-name',
      'k8s:pod-uid',
      'k8s:pod-label',
      'k8s:container-name',
      'k8s:container-image',
      'k8s:node-name',
    ],
    isCostly: false,
    selectorsOf: async ({ cgroups }, signal) => {
      const container = containerOf(cgroups);
      if (container === undefined || container.podUid === null) return [];
      const facts = await find(container, signal);
      return facts === undefined ? [] : selectorsOf(facts);
    },
  };
}

function selectorsOf(facts: ContainerFacts): ReturnType<typeof validSelector> {
  return [
    ...validSelector('k8s:ns', facts.namespace),
    ...validSelector('k8s:sa', facts.serviceAccount),
    ...validSelector('k8s:pod-name', facts.podName),
    ...validSelector('k8s:pod-uid', facts.podUid),
    ...facts.labels.flatMap(([key, value]) => validSelector('k8s:pod-label', `${key}:${value}`)),
    ...validSelector('k8s:container-name', facts.containerName),
    ...validSelector('k8s:container-image', facts.imageDigest),
    ...validSelector('k8s:node-name', facts.nodeName),
  ];
}
