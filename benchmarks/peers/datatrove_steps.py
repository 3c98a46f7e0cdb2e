"""Steps of datatrove (Hugging Face), run in an environment of its own; prints the seconds of the last line.

python datatrove_steps.py filters|signatures FOLDER OUT WORKERS
"""

import sys
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.utils.hashing import HashConfig

if __name__ == "__main__":
    step, source, out, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if step == "filters":
        steps = [JsonlReader(source), GopherRepetitionFilter(), GopherQualityFilter()]
    else:
        config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=20, hashes_per_bucket=6)
        steps = [JsonlReader(source), MinhashDedupSignature(output_folder=out, config=config)]
    executor = LocalPipelineExecutor(pipeline=steps, tasks=workers, workers=workers, logging_dir=f"{out}-logs")
    began = time.monotonic()
    executor.run()
    print(time.monotonic() - began)
