"""The log of a run, in a process that goes on after it."""

import logging
import shutil

from fakd.engine.logs import run_logging


def test_the_log_is_closed_with_its_run_and_anew_where_the_folder_went(tmp_path):
    folder, logger = tmp_path / "run", logging.getLogger("fakd")
    for text in ("first", "second"):
        with run_logging(str(folder)):
            logger.info(text)
            files = [each for each in logger.handlers if isinstance(each, logging.FileHandler)]
            streams = [each.stream for each in files if each.baseFilename == str(folder / "log.txt")]
        (line,) = (folder / "log.txt").read_text().splitlines()
        assert line.endswith(f"fakd INFO: {text}")
        assert len(streams) == 1 and streams[0].closed
        shutil.rmtree(folder)
