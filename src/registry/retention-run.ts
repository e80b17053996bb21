import { ask, askRead, type Transaction } from '../db/client.ts'
import { recordEvents } from '../db/events.ts'
import {
  advancePlanning,
  beginPlanning,
  completeRun,
  endPlanning,
  failRun,
  findRun,
  forgetRuns,
  insertRemovals,
  insertRun,
  listRemovals,
  nextRun,
  type Removal,
  type RunRow,
} from '../db/retention.ts'
import type { Deps } from '../deps.ts'
import { rulesNow } from './retention.ts'
import { type Page, planPages } from './retention-plan.ts'
import type { Rules } from './retention-policy.ts'
import { removeDecided } from './retention-removal.ts'

// A run is done by whichever worker has its job, and by the next one where that is cut: what it has planned and what it has
// removed stands in the database. Two workers at one run, for a moment, do it no harm. While it is planned, a page is
// taken down only by whoever moves the run on from where it was read (`advancePlanning`); each decision is carried out by
// whoever finds it waiting, in the transaction that marks it (retention-removal.ts).

type Watch = { signal: AbortSignal; progress(value: object): void }

/** Pages that have so many decisions are taken down together. */
const decisionsAtOnce = 5000
/** So many removals are read at a time, and as many of one plain repository are one transaction. */
const removalsAtOnce = 500
const runsKept = 200

/**
 * Does the runs that wait or were cut. `scheduled`: where there is none, one of all enabled policies, if there are any.
 * Answers how the last one ended. Throws what ends a run before its time; it can be gone on with.
 */
export async function runRetention(
  deps: Deps,
  { scheduled = false }: { scheduled?: boolean },
  watch: Watch,
): Promise<object | undefined> {
  let id = await ask(deps.db, nextRun)
  if (id === undefined && scheduled) id = await scheduledRun(deps)
  let result: object | undefined
  while (id !== undefined) {
    const run = await perform(deps, id, watch)
    if (run) result = summary(run)
    // Somebody else is at it.
    if (run && run.state !== 'completed' && run.state !== 'failed') return result
    id = await ask(deps.db, nextRun)
  }
  await ask(deps.db, (sql) => forgetRuns(sql, runsKept))
  return result
}

async function scheduledRun(deps: Deps): Promise<string | undefined> {
  const rules = await ask(deps.db, (sql) => rulesNow(sql, undefined))
  if (!rules || rules.acting.size === 0) return undefined
  return ask(deps.db, (sql) => insertRun(sql, { policy: undefined, askedBy: 'the schedule' }))
}

async function perform(deps: Deps, id: string, watch: Watch): Promise<RunRow | undefined> {
  await ask(deps.db, (sql) => beginPlanning(sql, id))
  const run = await askRead(deps.db, (sql) => findRun(sql, id))
  if (!run) return undefined
  const policy = run.policy ?? undefined
  const rules = await ask(deps.db, (sql) => rulesNow(sql, policy))
  if (!rules) await ask(deps.db, (sql) => failRun(sql, id, `the policy ${policy} was removed before the run was done`))
  else if (run.state === 'removing' || (await plan(deps, run, rules, watch))) {
    await removeAll(deps, id, policy, watch)
    await ask(deps.db, (sql) => sql.begin((tx) => finish(tx, id)))
  }
  return askRead(deps.db, (sql) => findRun(sql, id))
}

/** False where another worker is at it, and further. */
async function plan(deps: Deps, { id, plannedTo }: RunRow, rules: Rules, watch: Watch): Promise<boolean> {
  let from = plannedTo
  let pages: Page[] = []
  const takeDown = async () => {
    const to = pages.at(-1)?.position
    if (to === undefined) return true
    const moved = await ask(deps.db, (sql) => sql.begin((tx) => writePages(tx, id, pages, { from, to })))
    from = to
    pages = []
    return moved
  }
  for await (const page of planPages(deps, rules, plannedTo, Date.now())) {
    watch.signal.throwIfAborted()
    watch.progress({ run: id, planned: page.repository })
    pages.push(page)
    if (pages.reduce((sum, { decisions }) => sum + decisions.length, 0) < decisionsAtOnce) continue
    if (!(await takeDown())) return false
  }
  if (!(await takeDown())) return false
  await ask(deps.db, (sql) => endPlanning(sql, id))
  return true
}

async function writePages(
  tx: Transaction,
  id: string,
  pages: readonly Page[],
  { from, to }: { from: string; to: string },
): Promise<boolean> {
  const tally: Record<string, number> = {}
  const removals = pages.flatMap(({ repository, decisions }) =>
    decisions.flatMap((decision) => {
      const { kind, name, reason } = decision
      if (decision.action === 'remove') return [{ repository, kind, name, policy: decision.policy, reason }]
      tally[decision.rule] = (tally[decision.rule] ?? 0) + 1
      return []
    }),
  )
  if (!(await advancePlanning(tx, id, { from, to, tally }))) return false
  await insertRemovals(tx, id, removals)
  return true
}

async function removeAll(deps: Deps, id: string, policy: string | undefined, watch: Watch): Promise<void> {
  let done = 0
  const memory = {}
  for (let last = 0; ; ) {
    const waiting = await askRead(deps.db, (sql) =>
      listRemovals(sql, id, { last, limit: removalsAtOnce, waiting: true }),
    )
    if (waiting.length === 0) return
    for (const group of groupsOf(waiting)) {
      watch.signal.throwIfAborted()
      await removeDecided(deps, id, policy, group, memory)
      done += group.length
      watch.progress({ run: id, removing: group[0]?.repository, done })
    }
    last = waiting.at(-1)?.number ?? last
  }
}

/** A version stands alone; what follows each other in a plain repository is one. */
function groupsOf(removals: readonly Removal[]): [Removal, ...Removal[]][] {
  const groups: [Removal, ...Removal[]][] = []
  for (const removal of removals) {
    const group = groups.at(-1)
    const isOfPack = removal.kind === 'version' || removal.kind === 'prerelease'
    if (!isOfPack && group?.[0].kind === removal.kind && group[0].repository === removal.repository) group.push(removal)
    else groups.push([removal])
  }
  return groups
}

/** Once, whoever comes to it. */
async function finish(tx: Transaction, id: string): Promise<void> {
  if (!(await completeRun(tx, id))) return
  const run = await findRun(tx, id)
  if (run) await recordEvents(tx, [{ type: 'retention.applied', subject: id, data: summary(run) }])
}

function summary(run: RunRow): object {
  const { id, policy, planned, removed, spared, gone, freedBytes, tally, error } = run
  return {
    ...{ run: id, policy: policy ?? undefined, planned, removed, spared, gone, freedBytes, kept: tally },
    ...(error === null ? {} : { error }),
  }
}
