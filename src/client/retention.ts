import { askFor } from './answers.ts'
import { type Connection, jsonBody } from './connection.ts'
import { listed, pages } from './pages.ts'

/** What is kept of a kind of things: whatever one of these rules says. */
export type Keeping = {
  /** So many: of versions the highest, of tags those that were pushed last. */
  keepNewest?: number
  /** Published, pushed, or without a tag for less long than this: `12h`, `90d`, `4w`. */
  keepNewerThan?: string
}

/** What of repositories is removed: of every kind that is named here, what none of its rules keeps. */
export type RetentionPolicy = {
  /** Globs over names: `packs/net-*`, `images/**`. */
  repositories: string[]
  except?: string[]
  /** Releases of packs. */
  versions?: Keeping
  prereleases?: Keeping & { keepUnreleased?: true }
  /** Tags of repositories that are no packs; what they named stays, until `untagged` says otherwise. */
  tags?: Keeping & { keepMatching?: string[] }
  untagged?: Pick<Keeping, 'keepNewerThan'>
}

export type StoredPolicy = {
  name: string
  enabled: boolean
  policy: RetentionPolicy
  updatedBy: string
  updatedAt: string
}

/** A version that nobody may delete. */
export type Hold = { packId: string; version: string; reason: string; heldBy: string; heldAt: string }

type What = { repository: string; kind: 'version' | 'prerelease' | 'tag' | 'untagged'; name: string; reason: string }

/** `reason`: in words that go on from "kept: " or "removed: ". */
export type RetentionDecision = What & { action: 'keep' | 'remove'; rule?: string; policy?: string }

export type RetentionRun = {
  id: string
  policy?: string
  askedBy: string
  state: 'waiting' | 'planning' | 'removing' | 'completed' | 'failed'
  createdAt: string
  startedAt?: string
  finishedAt?: string
  planned: number
  removed: number
  /** Looked at again, it was not to go any more. */
  spared: number
  /** Somebody else had removed it. */
  gone: number
  /** How many things were kept, by the rule. */
  kept: Record<string, number>
  /** About how much less there is in the store, once it is collected. */
  freedBytes: number
  error?: string
}

export type RetentionRemoval = What & {
  number: number
  policy: string
  outcome?: 'removed' | 'kept' | 'gone'
  outcomeReason?: string
  decidedAt?: string
}

type Cancellable = { signal?: AbortSignal | undefined }

/** What is removed by itself, and what never is. All of it takes an administrator. */
export type Retention = {
  policies(options?: Cancellable): Promise<StoredPolicy[]>
  /** Throws POLICY_UNKNOWN. */
  policy(name: string, options?: Cancellable): Promise<StoredPolicy>
  /** Throws REQUEST_INVALID, which says what is wrong with it. */
  set(name: string, policy: RetentionPolicy, options: Cancellable & { enabled: boolean }): Promise<StoredPolicy>
  /** False where there was none. */
  remove(name: string, options?: Cancellable): Promise<boolean>
  holds(options?: Cancellable): AsyncGenerator<Hold, void, undefined>
  /** Throws VERSION_UNKNOWN. */
  hold(packId: string, version: string, reason: string, options?: Cancellable): Promise<Hold>
  /** False where it was not held. */
  release(packId: string, version: string, options?: Cancellable): Promise<boolean>
  /**
   * What would be removed now, in pages: by the policy of a name, by one that is not stored, or by all that are enabled.
   * `freedBytes` is about what the page would free.
   */
  plan(
    of?: { name?: string | undefined; policy?: RetentionPolicy | undefined },
    options?: Cancellable,
  ): AsyncGenerator<{ decisions: RetentionDecision[]; freedBytes: number }, void, undefined>
  /** Has a policy applied, soon, or all that are enabled. Throws POLICY_UNKNOWN. */
  run(name?: string, options?: Cancellable): Promise<RetentionRun>
  /** The newest first. */
  runs(options?: Cancellable): Promise<RetentionRun[]>
  /** Throws RUN_UNKNOWN, as `removals` does. */
  showRun(id: string, options?: Cancellable): Promise<RetentionRun>
  removals(id: string, options?: Cancellable): AsyncGenerator<RetentionRemoval, void, undefined>
}

export function retentionOf(connection: Connection): Retention {
  return { ...policiesOf(connection), ...holdsOf(connection), ...runsOf(connection) }
}

function policiesOf(connection: Connection) {
  const path = (name: string) => `/retention/policies/${encodeURIComponent(name)}`
  const policyAt = async (call: { method?: 'PUT'; path: string; body?: ReturnType<typeof jsonBody> } & Cancellable) =>
    (await askFor<{ policy: StoredPolicy }>(connection, 'policy', call)).policy
  return {
    async policies({ signal } = {}) {
      const call = { path: '/retention/policies', signal }
      return (await askFor<{ policies: StoredPolicy[] }>(connection, 'policies', call)).policies
    },
    policy: (name, { signal } = {}) => policyAt({ path: path(name), signal }),
    set: (name, policy, { enabled, signal }) =>
      policyAt({ method: 'PUT', path: path(name), body: jsonBody({ policy, enabled }), signal }),
    async remove(name, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: path(name), signal }
      return (await askFor<{ deleted: boolean }>(connection, 'deleted', call)).deleted
    },
  } satisfies Partial<Retention>
}

function holdsOf(connection: Connection) {
  const path = (packId: string, version: string) =>
    `/retention/holds/${encodeURIComponent(packId)}/${encodeURIComponent(version)}`
  return {
    holds: ({ signal } = {}) => listed<Hold>(connection, 'holds', { path: '/retention/holds', signal }),
    async hold(packId, version, reason, { signal } = {}) {
      const call = { method: 'PUT' as const, path: path(packId, version), body: jsonBody({ reason }), signal }
      return (await askFor<{ hold: Hold }>(connection, 'hold', call)).hold
    },
    async release(packId, version, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: path(packId, version), signal }
      return (await askFor<{ released: boolean }>(connection, 'released', call)).released
    },
  } satisfies Partial<Retention>
}

function runsOf(connection: Connection) {
  const path = (id: string) => `/retention/runs/${encodeURIComponent(id)}`
  return {
    plan: ({ name, policy } = {}, { signal } = {}) => {
      const body = jsonBody({ ...(name === undefined ? {} : { name }), ...(policy ? { policy } : {}) })
      const call = { method: 'POST' as const, path: '/retention/plan', body, signal }
      return pages<{ decisions: RetentionDecision[]; freedBytes: number }>(connection, 'decisions', call)
    },
    async run(name, { signal } = {}) {
      const body = jsonBody(name === undefined ? {} : { name })
      const call = { method: 'POST' as const, path: '/retention/run', body, signal }
      return (await askFor<{ run: RetentionRun }>(connection, 'run', call)).run
    },
    async runs({ signal } = {}) {
      return (await askFor<{ runs: RetentionRun[] }>(connection, 'runs', { path: '/retention/runs', signal })).runs
    },
    async showRun(id, { signal } = {}) {
      return (await askFor<{ run: RetentionRun }>(connection, 'run', { path: `${path(id)}?limit=1`, signal })).run
    },
    removals: (id, { signal } = {}) => listed<RetentionRemoval>(connection, 'removals', { path: path(id), signal }),
  } satisfies Partial<Retention>
}
