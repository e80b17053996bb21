/**
 * Joins what many requests ask at the same moment into one statement.
 *
 * `load(key)` puts the key in the open batch. The batch leaves when the event loop has handled every socket that was
 * readable (`setImmediate`), or, while `lanes` statements are under way already, when one of them is back: the busier
 * the server, the larger the batches, and an idle one adds no wait. Nothing is remembered from one batch to the next,
 * so an answer is never older than its question. `run` gives one answer per key, in the order of the keys.
 * A batch that fails fails all of its callers.
 */
export function batched<Key, Answer>(
  run: (keys: Key[]) => Promise<Answer[]>,
  { lanes = 1, most = 200 } = {},
): (key: Key) => Promise<Answer> {
  type Waiter = { resolve: (answer: Answer) => void; reject: (error: unknown) => void }
  const keys: Key[] = []
  const waiters: Waiter[] = []
  let underWay = 0
  let scheduled = false

  const leave = () => {
    scheduled = false
    while (keys.length > 0 && underWay < lanes) {
      const asked = keys.splice(0, most)
      const asking = waiters.splice(0, most)
      underWay++
      run(asked).then(
        (answers) => {
          underWay--
          for (let i = 0; i < asking.length; i++) asking[i]?.resolve(answers[i] as Answer)
          if (keys.length > 0) leave()
        },
        (error) => {
          underWay--
          for (const waiter of asking) waiter.reject(error)
          if (keys.length > 0) leave()
        },
      )
    }
  }

  return (key) =>
    new Promise((resolve, reject) => {
      keys.push(key)
      waiters.push({ resolve, reject })
      if (!scheduled && underWay < lanes) {
        scheduled = true
        setImmediate(leave)
      }
    })
}
