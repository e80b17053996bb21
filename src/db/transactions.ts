import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import type { Sql, Transaction } from './client.ts'

// What becomes of a transaction whose connection is cut, by a failover, an administrator, or because the process stood
// still in it for too long. PostgreSQL has rolled it back. The driver (postgres 3.4.9) says CONNECTION_CLOSED, and then
// does two things that must not be:
//
// - It sends a rollback to where there is no socket any more, which is an error that nobody can catch and that ends the
//   process. So what fails by the connection never comes back to it: the end of the connection settles the outcome.
// - It sends further statements of the transaction on the connection as it is by then: a new one, outside of any
//   transaction, or inside that of somebody else. So a transaction that has ended takes no statement.

type Begin = Sql['begin']
type Work = (tx: Transaction) => unknown

/** Makes `sql.begin` do neither. */
export function guardTransactions(sql: Sql): void {
  const begin = sql.begin.bind(sql) as (options: string, work: Work) => Promise<unknown>
  const guarded = async (...[first, second]: [string, Work] | [Work]) => {
    const [options, work] = typeof first === 'string' ? [first, second as Work] : ['', first]
    const state = { ended: false }
    try {
      return await begin(options, (tx) => settle(() => work(guardedTransaction(tx, state)), state))
    } finally {
      state.ended = true
    }
  }
  Object.assign(sql, { begin: guarded as unknown as Begin })
}

/** How long the end of a connection may take to be known after it has failed, in milliseconds. */
const patienceMs = 1_000

/** As the work ends; not at all where the transaction has ended because of its connection. */
async function settle(work: () => unknown, state: { ended: boolean }): Promise<unknown> {
  try {
    return await work()
  } catch (error) {
    if (isCut(error)) await sleep(patienceMs, undefined, { ref: false })
    if (!state.ended) throw error
    return new Promise(() => undefined)
  }
}

/** Whether it is the driver that has nobody to talk to: an error of the server, or of another part, is none of these. */
function isCut(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof postgres.PostgresError) return false
  const { code = '' } = error as { code?: string }
  return code.startsWith('CONNECTION_') || ('query' in error && 'syscall' in error)
}

function guardedTransaction(tx: Transaction, state: { ended: boolean }): Transaction {
  const requireOpen = () => {
    if (state.ended) throw Object.assign(new Error('the transaction has ended'), { code: 'CONNECTION_CLOSED' })
  }
  return new Proxy(tx, {
    apply(target, self, args) {
      requireOpen()
      return Reflect.apply(target as never, self, args)
    },
    get(target, key) {
      if (key === 'unsafe') requireOpen()
      return Reflect.get(target, key)
    },
  })
}
