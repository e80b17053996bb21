import assert from 'node:assert/strict'
import { it } from 'node:test'
import { Failure } from '../errors.ts'
import { PartBudget } from './part-budget.ts'

const late = (error: unknown) => {
  assert.ok(error instanceof Failure)
  assert.deepEqual([error.key, error.headers['retry-after']], ['UNAVAILABLE', '15'])
  return true
}

it('whoever waits too long for room is told to come back, and whoever stands behind goes on', async () => {
  const budget = new PartBudget(10, 50)
  const held = await budget.take(6)
  const large = assert.rejects(budget.take(5), late)
  // It would fit, but came later.
  const small = budget.take(4)
  await large
  const taken = await small
  await assert.rejects(budget.take(1), late)

  budget.release(held, { reuse: false })
  budget.release(taken, { reuse: false })
  assert.equal((await budget.take(10)).length, 10)
})
