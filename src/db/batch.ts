/** What many requests ask at the same moment, joined into one statement. See `batched`. */
export type Batched<Key, Answer> = {
  /** `done` is called with the answer, or with the error of the statement. The hottest reads use this form. */
  ask(key: Key, done: Done<Answer>): void
  load(key: Key): Promise<Answer>
}

type Done<Answer> = (error: unknown, answer?: Answer) => void

/**
 * Joins what many requests ask at the same moment into one statement.
 *
 * A key is put in the open batch. The batch leaves when the event loop has handled every socket that was readable
 * (`setImmediate`), or, while `lanes` statements are under way already, when one of them is back: the busier the
 * server, the larger the batches, and an idle one adds no wait. Nothing is remembered from one batch to the next, so
 * an answer is never older than its question. `run` gives one answer per key, in the order of the keys.
 * A batch that fails fails all of its callers.
 */
export function batched<Key, Answer>(
  run: (keys: Key[]) => Promise<Answer[]>,
  { lanes = 1, most = 200 } = {},
): Batched<Key, Answer> {
  let keys: Key[] = []
  let waiting: Done<Answer>[] = []
  let underWay = 0
  let scheduled = false

  const leave = () => {
    scheduled = false
    while (keys.length > 0 && underWay < lanes) {
      const asked = keys.length <= most ? keys : keys.slice(0, most)
      const asking = asked === keys ? waiting : waiting.slice(0, most)
      keys = asked === keys ? [] : keys.slice(most)
      waiting = asking === waiting ? [] : waiting.slice(most)
      underWay++
      run(asked).then(
        (answers) => back(asking, (done, i) => done(undefined, answers[i])),
        (error) => back(asking, (done) => done(error)),
      )
    }
  }
  // The next batch leaves before this one's callers act on their answers: the database works while they do.
  const back = (asking: Done<Answer>[], tell: (done: Done<Answer>, i: number) => void) => {
    underWay--
    if (keys.length > 0) leave()
    for (const [i, done] of asking.entries()) tell(done, i)
  }
  const ask = (key: Key, done: Done<Answer>) => {
    keys.push(key)
    waiting.push(done)
    if (scheduled || underWay >= lanes) return
    scheduled = true
    setImmediate(leave)
  }
  return {
    ask,
    load: (key) =>
      new Promise((resolve, reject) => {
        ask(key, (error, answer) => (error === undefined ? resolve(answer as Answer) : reject(error)))
      }),
  }
}
