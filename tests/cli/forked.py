"""A server of processes that have imported everything: each runs one command line and ends.

What a shell sees of them (exit status, output, errors) is real; the seconds that importing torch
takes are spent once. Requests and answers are lines of JSON.
"""

import json
import os
import signal
import sys
import tempfile
import traceback


def serve():
    import lightning  # noqa: F401
    import pandas  # noqa: F401
    import timm  # noqa: F401

    import anomalib_rd.inference.load
    import anomalib_rd.reports.page
    import anomalib_rd.training.train  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request):
    """Fork, wait at most so many seconds, tell how it went."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(run(request))
        signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
        signal.alarm(request["seconds"])
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.alarm(0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return {"status": status, "out": texts[0], "err": texts[1]}


def run(request):
    """The command as ``python -m anomalib_rd`` runs it; gives the exit status."""
    from anomalib_rd.cli import main

    os.chdir(request["cwd"])
    for name, value in request["env"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = ["anomalib-rd", *request["words"]]
    if request["until_training"]:
        from anomalib_rd.training import train as training

        training.fit = lambda *_: os._exit(0)
    try:
        status = main()
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


if __name__ == "__main__":
    serve()
