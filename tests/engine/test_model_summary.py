"""The numbers a user compares two networks by."""

from fakd.config import load_config
from fakd.engine.model_summary import summarize, summary_table


def config(name):
    options = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "19"]
    return load_config(f"configs/_base_/models/{name}.yaml", options)


def test_a_student_beside_its_teacher():
    student = summarize(config("pspnet_r18"), "student", (512, 512))
    assert (round(student.params / 1e6, 3), round(student.aux_params / 1e6, 3)) == (12.641, 0.149)
    assert (round(student.gmacs, 2), student.stride, student.feature_channels) == (54.23, 8, 128)
    assert student.taps["res2"] == (64, 128, 128) and student.taps["logits"] == (19, 64, 64)
    teacher = summarize(config("deeplabv3_r18"), "teacher", (512, 512))
    text = summary_table([student, teacher])
    assert "12.641 M" in text and "59.93" in text and "512x64x64" in text
    gflops = next(line for line in text.splitlines() if line.startswith("GFLOPs"))
    assert gflops.split()[-1] == "1.1"  # 59.93 / 54.23


def test_one_network_has_no_ratio():
    assert "ratio" not in summary_table([summarize(config("pspnet_r18"), "x", (65, 97))])
