"""The three frozen prompts and the hello: constants, nothing else.

P-EASY, P-MEDIUM and P-HARD differ in what they ask for, not only in length: one function with its
rules spelt out, a piece of code with faults to be found, and a small design that must hold
together. Each leads to an answer of several hundred tokens, long enough for a decode rate. They
carry no check: they measure speed. Written for this project, and frozen by SHA-256 once released,
since a changed byte would make old and new runs incomparable.
"""

HELLO_PROMPT = "Say hello in one short sentence."

P_EASY = """\
Write a Python 3.9 function `format_size(count_bytes)` that turns a number of bytes into short \
text for people: "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB".

Rules:
- Steps of 1000, with the units B, kB, MB, GB and TB; above that, stay with TB.
- Bytes have no decimal place, everything else has exactly one.
- A value that would be shown as "1000.0 kB" is shown as "1.0 MB" instead; the same holds for \
the other units.
- A negative number or something that is not an int raises ValueError with a message that shows \
the value; True and False count as not an int.

Give the function with a docstring, then a table of eight inputs and what the function returns \
for them, among them the values on both sides of each step. Close with two sentences on how you \
made sure that the rounding at the step is right.
"""

P_MEDIUM = """\
This Python module keeps the results of slow calls in a folder. It is used by several threads \
and by several processes at once, and it sometimes returns wrong or broken data:

```python
import hashlib
import json
import os
import time

CACHE = {}

class FileCache:
    def __init__(self, folder, max_age_s=3600, options={}):
        self.folder = folder
        self.max_age_s = max_age_s
        self.options = options
        if not os.path.exists(folder):
            os.mkdir(folder)

    def _path(self, key):
        return os.path.join(self.folder, str(hash(key)) + ".json")

    def get(self, key, compute):
        if key in CACHE:
            return CACHE[key]
        path = self._path(key)
        if os.path.exists(path):
            if time.time() - os.path.getmtime(path) < self.max_age_s:
                return json.load(open(path))
        value = compute(key)
        CACHE[key] = value
        with open(path, "w") as file:
            json.dump(value, file)
        return value

    def clear(self):
        for name in os.listdir(self.folder):
            os.remove(name)
```

1. List every fault that you find, the worst one first. For each, quote the line, describe a \
concrete sequence of events in which it does harm, and say in one sentence how to mend it. There \
are at least eight.
2. Then give the corrected module for Python 3.9, standard library only. Keep the names \
`FileCache`, `get` and `clear` and their arguments, so that the callers need not change.
3. Say which of the faults a test could have caught, and which only a review.
"""

P_HARD = """\
Design and write a small job scheduler in Python 3.9, standard library only, for a single \
machine that may lose power at any time.

What it has to do:
- A job has a name, a command (a list of strings), a time at which it is due, the names of jobs \
it depends on, a largest number of attempts and a time limit in seconds.
- Jobs are kept in one SQLite file. A job that was running when the power went is started again, \
and that counts as one of its attempts.
- At most N jobs run at once. A job starts when it is due and all jobs it depends on have \
succeeded. If one of those has failed for good, the job is marked as skipped, and so are the \
jobs that depend on it.
- A failed attempt is repeated after a wait that doubles each time, begins at two seconds and \
never exceeds ten minutes.
- A job that exceeds its time limit is ended together with all processes that it has started; \
first politely, then after five seconds by force. Linux is enough.
- Adding a job whose dependencies would form a circle is refused, and the message names the circle.
- Two schedulers on the same file must never run the same job twice; the second one waits until \
the first has gone.

Deliver, in this order:
1. The states of a job and the allowed changes between them, as a table.
2. The SQL schema, with a reason for every index and constraint.
3. The complete code in one file with type annotations: adding jobs, the main loop, starting and \
ending processes, and recovery after a crash. No busy waiting.
4. The three moments at which a loss of power is most dangerous, and why your code survives each.
5. Five tests that you would write first, each in one sentence, and how they get by without waiting.
6. What your design does not guarantee, stated plainly.
"""

PROMPTS = {"P-EASY": P_EASY, "P-MEDIUM": P_MEDIUM, "P-HARD": P_HARD}
