import {
  compileStoredMesh,
  createMeshHolder,
  type MeshHolder,
  type MeshSettings,
} from './identity/current-mesh.ts';
import { policyModeOf } from './identity/policy-revision.ts';
import type { NodeView } from './identity/view.ts';
import { createPolicyGuard } from './node/policy-guard.ts';

/** What an agent goes by: the last view that it could take. */
export type AgentView = {
  /**
   * Takes a view whole, or not at all.
   * @throws MeshError `policy_replayed`, `policy_revision_invalid`, and `policy_invalid` for what this version cannot read:
   *   nothing has changed then, and the view does not count as seen
   */
  readonly take: (view: NodeView) => void;
  /** Undefined before the first. */
  readonly taken: () => NodeView | undefined;
  readonly holder: () => MeshHolder | undefined;
};

/** Starts without a view. */
export function createAgentView(): AgentView {
  const guard = createPolicyGuard();
  let holder: MeshHolder | undefined;
  let taken: NodeView | undefined;
  return {
    take: (view) => {
      guard.demand(view);
      const next = compileStoredMesh(view.mesh, settingsOf(view), holder?.current());
      // INVARIANT: whatever may refuse a view stands above; from here on all of it is in force.
      guard.enforce(view);
      taken = view;
      if (holder === undefined) holder = createMeshHolder(next);
      else holder.replace(next);
    },
    taken: () => taken,
    holder: () => holder,
  };
}

/** What the mesh of a view is read under. */
export function settingsOf({ bundle, settings, mesh }: NodeView): MeshSettings {
  const { rootNamespace, ttlSeconds } = settings;
  return { trustDomain: bundle.trustDomain, rootNamespace, ttlSeconds, policyMode: policyModeOf(mesh) };
}
