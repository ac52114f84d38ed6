"""The mistakes that people make, each answered by one line that names the thing and what would be right.

Left what is typed behind `python train.py` or `gan-lightning`, right a part of the answer. What only the data or the
hardware show is in test_run.py, strangers' files are in test_hostile.py.
"""

import shlex
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from conftest import CONF
from omegaconf import OmegaConf

from gan_lightning import cli
from gan_lightning.entry import guarded

WHOLE = "should be a whole number"
NUMBER = "should be a number"
FLAG = "should be true or false"
UNSET = "is a variable of the shell not set?"
SWEEP = "only a sweep takes: add -m to run each"
FORM = "is not of the form key=value"
TRAIN = {
    # keys that are none, and groups
    "latent_dm=3": "did you mean latent_dim or",
    "lrr=3": "lrr is no key of the configuration; did you mean lr or",
    "LR=0.1": "did you mean lr or",
    "learning_rate=0.1": "did you mean lr?",
    "epochs=5": "did you mean trainer.max_epochs?",
    "batch_size=16": "did you mean dataset.batch_size?",
    "gpus=2": "did you mean trainer.devices?",
    "resume=last.ckpt": "did you mean ckpt_path?",
    "optimizer=adam": "did you mean optimizer_g or optimizer_d?",
    "loss.gama=1": "did you mean loss.gamma",
    "dataset.rot=/x": "did you mean dataset.root",
    "ema.decay=0.999": "ema.decay is no key of the configuration",
    "no.such.key=1": "no.such.key is no key of the configuration; python train.py --help shows all",
    "+foo=1": "foo is no key of the configuration",
    "++foo.bar=1": "foo.bar is no key of the configuration",
    "+trainer.nonsense=1": "trainer.nonsense is no key",
    "+lr=0.1": "An item is already at 'lr'. Either remove + prefix",
    "~lr": "~lr is not possible: the program needs this key",
    "~dataset": "~dataset is not possible",
    "~nothing": "nothing is no key",
    "diagnosis.thresholds.lr_too_hgh.ratio=1": "did you mean diagnosis.thresholds.lr_too_high.ratio",
    "optimizer_d.weight_decay=0.1": "optimizer_d.weight_decay is not set so far: write +optimizer_d.weight_decay=0.1",
    "trainer.max_steps=100": "trainer.max_steps is not set so far: write +trainer.max_steps=100",
    "+trainer.callbacks=[]": "trainer.callbacks=[] should be left out: the program sets it",
    "dataset=eggs": "dataset=eggs does not exist; did you mean dataset=egg? there are cifar10, egg",
    "dataset=Mnist": "did you mean dataset=mnist?",
    "dataset=5": "dataset=5 does not exist; there are",
    "dataset=": "dataset= does not exist; there are",
    "dataset=@FOLDER": "did you mean dataset=folder dataset.root=",
    "dataset=./photos": "did you mean dataset=folder dataset.root=./photos ?",
    "./photos": "did you mean dataset=folder dataset.root=./photos ?",
    "help": "did you mean --help ?",
    "+network=mlp": "Multiple values for network",
    "dataset=null": "a group cannot be null: leave it out; there are cifar10",
    "augment=null": "a group cannot be null: augment=none turns it off",
    "loss=null": "a group cannot be null",
    "sweep=nothing": "sweep=nothing does not exist; there are losses, lr_gamma",
    "dataset=egg sweep=lr_gamma lr=abc": f"lr=abc {NUMBER}",
    "logger=comet": "logger=comet does not exist; there are csv",
    "network=dcgann": "did you mean network=dcgan?",
    "metrics=fid": "metrics=fid does not exist; there are default, none",
    "diagnosis=on": "diagnosis=on does not exist; there are default, off",
    "trainer=gpus": "did you mean trainer=gpu?",
    "experiment=nothing": "experiment=nothing does not exist; there are egg",
    "experiment=": "experiment= does not exist; there are egg",
    "experiment=vanila_mnist": "did you mean experiment=vanilla_mnist?",
    "hydra/launcher=none": "hydra/launcher=none does not exist; there are",
    "hydra.launcher=joblib": "hydra/launcher=... chooses one",
    # keys of another choice
    "network=mlp network.generator.channels=64": "is no key of network=mlp: leave it out, or choose network=dcgan",
    "network=resnet network.generator.norm=batch": "is no key of network=resnet",
    "loss=hinge loss.label_smoothing=0.1": "is no key of loss=hinge: leave it out, or choose loss=bce",
    "metrics=none metrics.patience=1": "is no key of metrics=none: leave it out, or choose metrics=default",
    "diagnosis=off diagnosis.light_every=9": "is no key of diagnosis=off",
    "dataset.labels=true": "dataset.labels is no key of the dataset chosen here: leave it out, or choose dataset=egg",
    # how it is typed
    "lr 0.1": f"lr {FORM}, with no space around = and quotes around a value with spaces: did you mean lr=0.1 ?",
    "lr = 0.1": "did you mean lr=0.1 ?",
    "lr= 0.1": "did you mean lr=0.1 ?",
    "lr =0.1": "did you mean lr=0.1 ?",
    "lr:0.1": "did you mean lr=0.1 ?",
    "lr": f"lr {FORM}",
    "dataset.root /my photos": "did you mean 'dataset.root=\"/my photos\"' ?",
    "experiment few_photos": "did you mean experiment=few_photos ?",
    "trainer.max_epochs: 3": "did you mean trainer.max_epochs=3 ?",
    "dataset folder": "did you mean dataset=folder ?",
    "[]": f"[] {FORM}",
    "=3": f"=3 {FORM}",
    "--lr=0.1": "--lr=0.1 is no option; settings go without dashes, as lr=0.1",
    "--lr 0.1": "--lr is no option; settings go without dashes, as lr=0.1",
    "-lr=0.1": "settings go without dashes, as lr=0.1",
    "lr==0.1": f"lr==0.1 {NUMBER}",
    "lr='\"0.1\"'": f'lr="0.1" {NUMBER} above 0 and up to 10, without quotes',
    "optimizer_g.betas=[0.0, 0.99]": "did you mean 'optimizer_g.betas=[0.0,0.99]' ?",
    "'optimizer_g.betas=(0.0,0.99)'": "a list is written 'optimizer_g.betas=[0.0,0.99]'",
    "optimizer_g.betas=0.0,0.99": f"{SWEEP}; one value should be two numbers",
    "optimizer_g.betas=[0.0": "cannot be read, a [ is not closed",
    "total_kimg=1,000": f"{SWEEP}; one value {NUMBER} above 0",
    "lr=0,001": f"lr=0,001 is several values, which {SWEEP}",
    "dataset=folder dataset.root=/a,b": "a value that holds a comma needs quotes: 'dataset.root=\"/a,b\"'",
    "dataset=folder dataset.root=/my photos of eggs": "did you mean 'dataset.root=\"/my photos of eggs\"' ?",
    "dataset=folder 'dataset.root=[a'": "cannot be read, a [ is not closed: as text it is 'dataset.root=\"[a\"'",
    "dataset=folder 'dataset.root=\"'": 'cannot be read, a " is not closed',
    "'lr=${nothing}'": "lr: Interpolation key 'nothing' not found",
    "'lr=${oc.env:NOT_SET_ANYWHERE}'": "Environment variable 'NOT_SET_ANYWHERE' not found",
    # numbers
    "latent_dim=0": f"latent_dim=0 {WHOLE} from 1 to 65536",
    "latent_dim=many": f"latent_dim=many {WHOLE}",
    "latent_dim=12.5": f"latent_dim=12.5 {WHOLE}",
    "latent_dim=100000000000": f"latent_dim=100000000000 {WHOLE} from 1 to 65536",
    "latent_dim=": f"latent_dim= {WHOLE} from 1 to 65536; there is nothing behind the = ({UNSET})",
    "latent_dim=null": f"latent_dim=null {WHOLE}",
    "latent_dim=[100]": f"latent_dim=[100] {WHOLE}",
    "latent_dim=true": f"latent_dim=true {WHOLE}",
    "seed=-1": f"seed=-1 {WHOLE} from 0 to 4294967295",
    "seed=abc": f"seed=abc {WHOLE}",
    "dataset.seed=abc": f"dataset.seed=abc {WHOLE}",
    "seed=1e3": f"seed=1000.0 {WHOLE}",
    "n_critic=five": f"n_critic=five {WHOLE} from 1 to 1000",
    "lr=0": f"lr=0 {NUMBER} above 0 and up to 10",
    "lr=-0.001": f"lr=-0.001 {NUMBER} above 0",
    "lr=nan": f"lr=nan {NUMBER}",
    "lr=1e-4x": f"lr=1e-4x {NUMBER}",
    "lr=1000": f"lr=1000 {NUMBER} above 0 and up to 10",
    "lr=[0.1]": f"lr=[0.1] {NUMBER}",
    "optimizer_g.lr=fast": f"optimizer_g.lr=fast {NUMBER}",
    "optimizer_g.betas=[0.9,1]": "optimizer_g.betas=[0.9,1] should be two numbers from 0 to below 1, as [0.0,0.99]",
    "optimizer_g.betas=0.9": "should be two numbers",
    "+optimizer_d.weight_decay=-0.1": f"optimizer_d.weight_decay=-0.1 {NUMBER} of at least 0",
    "optimizer_g._target_=adam": "should be the dotted name of a class, as package.module.Class",
    "optimizer_g._target_=nowhere.to.be.Found": "there is no module nowhere",
    "network.generator._target_=gan_lightning.networks.dcgann.Generator": "there is no module gan_lightning.networks.dcgann",
    "optimizer_g._target_=torch.optim.Adamm": "optimizer_g._target_=torch.optim.Adamm: torch.optim has no Adamm",
    "network.generator._target_=gan_lightning.networks.dcgan.Gen": "gan_lightning.networks.dcgan has no Gen",
    "+network.generator.depht=2": "network.generator.depht is no key that gan_lightning.networks.dcgan.Generator takes",
    "hydra.output_subdir=/abs": "hydra.output_subdir=/abs should be a name in the run's folder, or null",
    "hydra.output_subdir=../up": "hydra.output_subdir=../up should be a name",
    "--multi": "--multi is no option",
    "optimizer_g=adam": "optimizer_g=adam should be a block of keys",
    "total_kimg=250k": f"total_kimg=250k {NUMBER} above 0",
    "total_kimg=inf": f"total_kimg=inf {NUMBER}",
    "total_kimg=-5": f"total_kimg=-5 {NUMBER}",
    "grad_clip=0": f"grad_clip=0 {NUMBER} above 0, or null",
    "schedule.lr_final=2": f"schedule.lr_final=2 {NUMBER} from 0 to 1",
    "schedule.warmup_kimg=soon": f"schedule.warmup_kimg=soon {NUMBER}",
    "ema=null": "ema=null is not possible: leave it out, or set the single keys in it",
    "ema.halflife_kimg=-1": f"ema.halflife_kimg=-1 {NUMBER} from 0",
    "loss.gamma=high": f"loss.gamma=high {NUMBER} of at least 0, or null",
    "loss.gamma=-1": f"loss.gamma=-1 {NUMBER}",
    "loss.penalty_every=0": f"loss.penalty_every=0 {WHOLE}",
    "loss.label_smoothing=1": f"label_smoothing=1 {NUMBER} from 0 to below 1",
    "augment.p=2": f"augment.p=2 {NUMBER} from 0 to 1, or null",
    "augment.p=50%": f"augment.p=50% {NUMBER} from 0 to 1",
    "augment.ops=color": "augment.ops=color should be a list of color, translation, cutout and flip",
    "augment.ops=[colour]": "augment.ops=[colour] should be a list of color, translation",
    "network.generator.channels=abc": f"network.generator.channels=abc {WHOLE} from 1 to 65536, or null",
    "network.generator.depth=1000000000": f"network.generator.depth=1000000000 {WHOLE} from 1 to 16",
    "network.generator.norm=layer": "network.generator.norm=layer should be none, batch, group or spectral",
    "network.generator.upsample=bilinear": "should be smooth, resize or transposed",
    "network.generator=null": "network.generator=null is not possible",
    "network=mlp network.generator.hidden=256": "should be a list of layer sizes, as [256,512]",
    "network=mlp network.generator.hidden=[]": "should be a list of layer sizes",
    "network=mlp network.discriminator.dropout=1.5": f"dropout=1.5 {NUMBER} from 0 to below 1",
    "observer.every_kimg=never": f"observer.every_kimg=never {NUMBER}",
    "checkpoints.every_kimg=-1": f"checkpoints.every_kimg=-1 {NUMBER}",
    "console.every_steps=1.5": f"console.every_steps=1.5 {WHOLE}",
    "console=false": "console=false should be a block of keys",
    "retry=60": "retry=60 should be a block of keys",
    "retry.minutes=1h": f"retry.minutes=1h {NUMBER}",
    "features=vgg": "features=vgg should be digits, lite2, inception or a block with _target_, or null",
    "features=random": "features=random should be digits, lite2, inception",
    "aid=slice": "aid=slice does not exist; did you mean aid=sliced?",
    "aid=sliced aid.weight=0": f"aid.weight=0 {NUMBER} above 0",
    "aid=sliced aid.strides=8": "should be a list of 4, 8, 16 and 32, as [8,16,32]",
    "aid.weight=2": "aid.weight is no key of the aid chosen here: leave it out, or choose aid=heads or aid=sliced",
    "metrics.num_images=10": f"metrics.num_images=10 {WHOLE} from 50",
    "observer.max_fraction=-1": f"observer.max_fraction=-1 {NUMBER}",
    "diagnosis.rules=mine": "diagnosis.rules=mine should be a list of modules with rules",
    "diagnosis.language=de": "diagnosis.language=de should be en or ko",
    "diagnosis.light_every=0": f"diagnosis.light_every=0 {WHOLE}",
    "diagnosis.thresholds.common.poor=much": f"diagnosis.thresholds.common.poor=much {NUMBER}",
    # yes and no
    "reuse_fakes=yes": f"reuse_fakes=yes {FLAG}",
    "conditional=1": f"conditional=1 {FLAG}",
    "conditional=on": f"conditional=on {FLAG}",
    "compile=maybe": f"compile=maybe {FLAG}",
    "loss.r2=2": f"loss.r2=2 {FLAG}",
    "dataset.flip=horizontal": f"dataset.flip=horizontal {FLAG}",
    "dataset.drop_last=null": f"dataset.drop_last=null {FLAG}",
    "num_classes=5": "num_classes=5 should be left alone: it follows from the data when conditional=true",
    # the data
    "dataset=folder": "dataset.root is needed: add dataset.root=... to the command, the folder that holds the images",
    "dataset=folder dataset.root=": f"dataset.root= should be the folder that holds the images; there is nothing behind the = ({UNSET})",
    "dataset=folder dataset.root=5": "dataset.root=5 should be the folder that holds the images; if that is its name, write ./5",
    "dataset=folder dataset.root=null": "dataset.root=null should be the folder",
    "dataset=folder dataset.root=/not/there": "dataset.root=/not/there does not exist: give the folder that holds the images",
    "dataset=folder 'dataset.root=/not (there)'": "dataset.root=/not (there) does not exist",
    "dataset=folder dataset.root=/없는/사진": "dataset.root=/없는/사진 does not exist",
    "dataset=folder dataset.root=@FILE": "is a file: give the folder that holds the images",
    "dataset.root=/not/there": "dataset.root=/not/there does not exist: give the folder that holds the images, make it first",
    "dataset.source.root=/not/there": "dataset.source.root=/not/there does not exist",
    "dataset=egg dataset.root=/not/there": "dataset.root=/not/there does not exist",
    "dataset=egg dataset.source.number=0": f"dataset.source.number=0 {WHOLE}",
    "dataset.image_size=64x64": "dataset.image_size=64x64 should be 4 to 2048 pixels, as 64, or [height,width]",
    "dataset.image_size=100000": "should be 4 to 2048 pixels",
    "dataset.image_size=[64]": "dataset.image_size=[64] should be 4 to 2048 pixels, as 64, or [height,width]",
    "dataset.image_channels=rgb": "should be 1 (grey), 3 (RGB) or 4 (RGBA)",
    "dataset.image_channels=true": "should be 1 (grey), 3 (RGB) or 4 (RGBA)",
    "dataset.batch_size=0": f"dataset.batch_size=0 {WHOLE}",
    "dataset.batch_size=sixteen": f"dataset.batch_size=sixteen {WHOLE}",
    "dataset.fit=squeeze": "dataset.fit=squeeze should be crop, pad or stretch",
    "dataset.background=white": "dataset.background=white should be a grey level from 0 (black) to 255 (white)",
    "dataset.holdout=10%": "dataset.holdout=10% should be a fraction from 0 (off) to 0.5",
    "dataset.cache_dir=@FILE/x": "is a file (",
    "dataset.cache_dir=@FILE": "is a file: give a folder",
    "metrics.inception_weights=/not/there": "metrics.inception_weights=/not/there does not exist: give the file",
    # checkpoints and folders
    "ckpt_path=": f"there is nothing behind the = ({UNSET})",
    "ckpt_path=/not/there.ckpt": "ckpt_path=/not/there.ckpt does not exist: give a checkpoint",
    "ckpt_path=@RUN": "is a folder: give a checkpoint, as ",
    "ckpt_path=@FOLDER": "is a folder: give a checkpoint, as",
    "ckpt_path=true": "ckpt_path=true should be the path of a checkpoint",
    "hydra.run.dir=": "hydra.run.dir= should be the path of a folder",
    "hydra.run.dir=@FILE/run": "is a file (",
    "hydra.job.num=abc": "hydra.job.num: Value 'abc' of type 'str' could not be converted to Integer",
    # Lightning's Trainer
    "trainer.devices=0": "trainer.devices=0 should be a number of devices of at least 1, -1 for all, or a list as [0,1]",
    "trainer.devices=abc": "trainer.devices=abc should be a number of devices",
    "trainer.num_nodes=0": f"trainer.num_nodes=0 {WHOLE}",
    "trainer.strategy=none_such": "trainer.strategy=none_such should be auto or one of Lightning's ddp strategies",
    "trainer.strategy=ddp_nonesuch": "trainer.strategy=ddp_nonesuch should be auto or one of",
    "trainer.accelerator=tpu": "trainer.accelerator=tpu should be auto, cpu, gpu, cuda or mps",
    "trainer.precision=16": "trainer.precision=16 should be 32-true, 64-true or bf16-mixed",
    "trainer.max_epochs=ten": "trainer.max_epochs=ten should be a whole number of at least 1, or -1 for no limit",
    "trainer.max_time=5m": "trainer.max_time=5m should be days:hours:minutes:seconds, as 00:00:10:00 for ten minutes",
    "trainer.max_time=00:00:00:00": "should be days:hours:minutes:seconds",
    "trainer.limit_train_batches=0": "should be a number of batches of at least 1, or a fraction as 0.1",
    "trainer.log_every_n_steps=0": f"trainer.log_every_n_steps=0 {WHOLE}",
    "trainer.deterministic=sure": "should be true, false or warn",
    "trainer.profiler=fast": "should be simple, advanced, pytorch or a block with _target_",
    "trainer.enable_progress_bar=off": FLAG,
    "+trainer.gradient_clip_val=1": "left out: grad_clip=... limits both networks' gradients",
    "+trainer.detect_anomaly=5": FLAG,
    "logger.csv=null": "logger.csv=null is not possible",
    # sweeps and Hydra's options
    "hydra.mode=MULTIRUN lr=0.1,abc": f"lr=abc {NUMBER}",
    "hydra.mode=SWEEP": "hydra.mode: Invalid value 'SWEEP', expected one of [RUN, MULTIRUN]",
    "dataset=mnist,egg": f"{SWEEP}; one value should be cifar10, egg",
    "-m 'dataset.root=glob(*)'": "glob(...) is for groups",
    "-m lr=0.1,abc": f"lr=abc {NUMBER}",
    "-m seed=1,2,x dataset=egg": f"seed=x {WHOLE}",
    "-m loss=bce,rpgam": "loss=rpgam does not exist; did you mean loss=rpgan?",
    "-m lr=0.1,": "there is nothing behind the last comma",
    "-m 'lr=range(0,2)'": f"lr=0 {NUMBER}",
    "-m 'seed=range(1,2,0)'": "seed=range(1,2,0) cannot be swept",
    "-m 'seed=range(5,1)'": "seed=range(5,1) stands for no value",
    "dataset=folder dataset.root=~nosuchuser/x": "dataset.root=~nosuchuser/x does not exist",
    "-m 'lr=choice(0.1'": "lr=choice(0.1 should be",
    "--multirn": "--multirn is no option",
    "--config-name nothing": "Cannot find primary config 'nothing'",
    "--config-dir /not/there": "--config-dir /not/there does not exist",
    "--config-path /not/there": "--config-path /not/there does not exist",
    "--cfg everything": "invalid choice: 'everything' (choose from",
    "--cfg job lrr=1": "lrr is no key",
    "--resolve": "--resolve goes with --cfg",
    "--run -m": "only one of --run, --multirun",
    "--experimental-rerun job.pickle": "would read a pickle, which can run code",
}  # fmt: skip
COMMANDS = {
    "": "Missing command",
    "sampel x": "No such command 'sampel'. Did you mean 'sample'?",
    "sample": "Missing argument 'CHECKPOINT'",
    "sample ''": f"'CHECKPOINT': what is empty should be a path ({UNSET})",
    "sample /not/there.ckpt": "/not/there.ckpt does not exist: give a checkpoint",
    "sample @RUN": "is a folder: give a checkpoint, as ",
    "sample @FOLDER": "is a folder: give a checkpoint, as",
    "sample @FILE --num-images 0": f"'--num-images': 0 {WHOLE} from 1 to",
    "sample @FILE --num 3": "No such option: --num",
    "sample @FILE --num-images many": f"'--num-images': many {WHOLE} from 1 to",
    "sample @FILE --seed x": f"'--seed': x {WHOLE}",
    "sample @FILE --class -1": f"'--class': -1 {WHOLE} from 0",
    "sample @FILE --class eight": f"'--class': eight {WHOLE}",
    "sample @FILE --device cudaa": "'--device': cudaa should be cpu, cuda, cuda:1 or mps",
    "sample @FILE --format jpg": "'--format': 'jpg' is not one of",
    "sample @FILE --truncation nan": f"'--truncation': nan {NUMBER} above 0",
    "sample @FILE --trust ../mine": "'--trust': ../mine should be the name of a package",
    "sample @FILE --out ''": "'--out': what is empty should be a path",
    "sample @FILE --out @FILE": "is a file: give a folder",
    "sample @FILE --out @FILE/x": "is a file (",
    "sample @FILE --colour": "No such option: --colour",
    "interpolate @FILE --rows 1000000000": f"'--rows': 1000000000 {WHOLE} from 1 to 100",
    "sample ~nosuchuser/x.ckpt": "~nosuchuser/x.ckpt does not exist",
    "check ~nosuchuser/x": "~nosuchuser/x does not exist",
    "interpolate @FILE --rows 0": f"'--rows': 0 {WHOLE} from 1 to 100",
    "interpolate @FOLDER": "is a folder: give a checkpoint, as",
    "export @FILE --format jpg": "'--format': 'jpg' is not one of",
    "export @FILE --license mit": "--license goes on the card of --format hub",
    "export @FILE --format hub --out @FILE": "is a file: give a folder",
    "find @FOLDER @FILE": "is a folder: give an image file",
    "find /not/there.jpg @FILE": "/not/there.jpg does not exist: give an image file",
    "find @FILE @FOLDER": "is a folder: give a checkpoint, as",
    "find @FILE @FILE --to /not/there": "--to /not/there does not exist: give an image file",
    "find @FILE @FILE --mp4": "--mp4 films the way to a second photograph: add --to PHOTO2",
    "find @FILE @FILE --steps 0": f"'--steps': 0 {WHOLE} from 1 to",
    "export @FILE --out @FOLDER": "is a folder: give a file name, as ",
    "export @RUN": "is a folder: give a checkpoint, as ",
    "evaluate @FOLDER": "Missing option '--data'",
    "evaluate @FOLDER --data /not/there": "--data /not/there does not exist: give a folder of images, or one of mnist",
    "evaluate @FOLDER --data mnst": "did you mean mnist?",
    "evaluate @FOLDER --data @FILE": "is a file: give a folder of images",
    "evaluate @FOLDER --data @FOLDER --features vgg": "'--features': 'vgg' is not one of",
    "evaluate @FOLDER --data @FOLDER --data-root @FOLDER": "--data-root is for mnist",
    "evaluate @FOLDER --data mnist --data-root /not/there": "--data-root /not/there does not exist: give the folder in",
    "evaluate @FOLDER --data @FOLDER --num-images 1.5": f"'--num-images': 1.5 {WHOLE} from 1 to",
    "evaluate @FOLDER --data @FOLDER --inception-weights /not/there": "does not exist: give the file with Inception's",
    "evaluate @FOLDER --data @FOLDER --truncation 0.5": "--truncation is for checkpoints",
    "evaluate @FOLDER --data @FOLDER --out @FILE": "is a file: give a folder",
    "evaluate @RUN --data @FOLDER": "is a folder: give a checkpoint, as ",
    "evaluate /not/there --data @FOLDER": "/not/there does not exist",
    "check": "Missing argument 'FOLDER'",
    "check /not/there": "/not/there does not exist: give the folder that holds your images",
    "check @FILE": "is a file: give the folder",
    "check @FOLDER --image-size 3": "'--image-size': 3 should be 4 to 2048 pixels, as 64 or 96x128",
    "check @FOLDER --image-size 64x": "'--image-size': 64x should be 4 to 2048 pixels",
    "check @FOLDER --channels 2": "'--channels': '2' is not one of '1', '3', '4'",
    "check @FOLDER --fit squeeze": "'--fit': 'squeeze' is not one of",
    "check @FOLDER --out @FILE": "is a file: give a folder",
    "check @FOLDER --cache-dir @FILE/x": "is a file (",
    "check @FOLDER": "holds no usable image",
    "diagnose /not/there": "/not/there does not exist: give the folder of a run",
    "diagnose @FOLDER": "holds no signals.jsonl: give the folder of a run",
    "diagnose @RUN --language de": "'--language': 'de' is not one of",
    "diagnose @RUN/checkpoints/last.ckpt": "is a file: give the folder of a run, its folder is ",
    "report @FILE": "is a file: give the folder of a run",
    "report @FOLDER": "is no run",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quickly():
    """The files of conf/ are parsed once for all of this."""
    load, known = OmegaConf.load, {}

    def cached(file):
        name = getattr(file, "name", file)
        known.setdefault(name, load(file)) if name not in known else None
        return deepcopy(known[name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(cached))
        yield


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A file, an empty folder and the folder of a run, where nothing may appear."""
    home = tmp_path_factory.mktemp("places")
    (home / "file").write_text("nothing")
    (home / "folder").mkdir()
    (home / "run" / "checkpoints").mkdir(parents=True)
    (home / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    (home / "run" / "config.yaml").write_text("seed: 1")
    return home


def arguments_of(typed: str, places: Path) -> list[str]:
    for name in ("FILE", "FOLDER", "RUN"):
        typed = typed.replace(f"@{name}", str(places / name.lower()))
    return shlex.split(typed)


def answer(typed, run, places, tmp_path, monkeypatch, capsys) -> tuple[int, str]:
    """Exit code and the one line; nothing may have been made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    arguments = arguments_of(typed, places)
    before = sorted(places.rglob("*"))
    with pytest.raises(SystemExit) as end:
        run(arguments)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and not said.out, lines
    assert not list(tmp_path.iterdir()) and sorted(places.rglob("*")) == before
    return end.value.code, lines[0]


def never():
    raise AssertionError("this should have been answered")


@pytest.mark.parametrize(("typed", "words"), TRAIN.items(), ids=TRAIN)
def test_of_train(typed, words, places, tmp_path, monkeypatch, capsys):
    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        guarded(never, CONF)

    code, line = answer(typed, run, places, tmp_path, monkeypatch, capsys)
    assert code == 1 and words in line, line


@pytest.mark.parametrize(("typed", "words"), COMMANDS.items(), ids=COMMANDS)
def test_of_the_commands(typed, words, places, tmp_path, monkeypatch, capsys):
    code, line = answer(
        typed,
        lambda arguments: sys.exit(cli.main(arguments)),
        places,
        tmp_path,
        monkeypatch,
        capsys,
    )
    assert words in line, line
    assert code == (2 if "--help shows what is possible" in line else 1)


def test_there_are_enough():
    assert len(TRAIN) + len(COMMANDS) > 200


RIGHT = [
    "", "lr=0.001 -m dataset=egg", "dataset=egg -m seed=1,2", "-m 'lr=interval(0.0001,0.01)'", "-m loss=bce,hinge seed=1,2",
    "experiment=few_photos dataset.root=@FOLDER", "+trainer.detect_anomaly=true", "'trainer.max_time={minutes: 5}'",
    "~optimizer_g.betas", "optimizer_g._target_=torch.optim.SGD +optimizer_g.momentum=0.9", "+logger.csv.prefix=x", "optimizer_g._target_=json.decoder.JSONDecoder", "+optimizer_d.weight_decay=0.1",
    "dataset.image_size=[32,48]", "trainer.devices='\"0,1\"'", "lr=5e-4", "hydra.mode=MULTIRUN lr=0.1,0.2", "dataset=egg sweep=lr_gamma", "total_kimg=null", "--cfg job dataset=folder",
]  # fmt: skip


@pytest.mark.parametrize("typed", RIGHT)
def test_what_is_right_goes_through(typed, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = arguments_of(typed, places)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    for name in ("HYDRA_FULL_ERROR", "GAN_LIGHTNING_GUARDED"):
        monkeypatch.setenv(name, "")  # the program sets them: to be put back
    passed = []
    assert guarded(lambda: passed.append(sys.argv[1:]), CONF) == 0
    assert sorted(passed[0]) == sorted(arguments)
    assert not Path("logs").exists()
