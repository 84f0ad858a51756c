"""Many runs from one file: plan, run, resume, report (``tools/study.py``).

Layout of a study's work folder::

    run.lock          held by the command that runs the study
    results.jsonl     one line per finished or failed run, append-only
    runs/VARIANT/seed-S_KEY/pretrain/         work folder of the pre-training
    runs/VARIANT/seed-S_KEY/pretrain.py       its resolved config
    runs/VARIANT/seed-S_KEY/EVALUATION_KEY/   the same of each evaluation
    report.md, report.html, plots/, results.csv, results.tex

KEY is the hash of resolved config and code, so a changed run gets a new
folder and nothing is overwritten. What a crash leaves is a work folder without
a line in ``results.jsonl``: the next command resumes it. A line that a crash
cut off is ignored.
"""
