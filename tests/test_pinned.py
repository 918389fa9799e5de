"""Identities that may change only on purpose: of the catalogue's recipes, their crafts, and exact perturbations.

What gradient methods craft is pinned beside: see ``test_pinned_crafts``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make_images

from builders import RECIPES
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.methods.method import Context, Method

CATALOGUE: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits-s": (
        "9a46b67d556835669635e90718bd3601a53fe723661bc1ee44cb3de2e5842e93",
        (
            "1f53462e60b567b6d92781f9f98b598d0e9af4471e8f7513495bb659486a0241",
            "0f271d4d29854efd4215649d6ead625e218927653bdc97f63b625bd9bc8ad1f5",
        ),
    ),
    "ops-digits": (
        "3f3755ece5fd34d099890ddfb5438ebe10cad4685d862edde7103d043256460a",
        ("e38a6c07e6fef3d66c02137048575c3b6892d18cc2072b1f02c3e707991cbd21",),
    ),
    "cifar10-s": (
        "65c4bef612b960148434f8d9294a799458bacde960dddffdfbb970b152395037",
        (
            "1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
        ),
    ),
    "em-cifar10": (
        "9d1475cd91de49f9037cb313de1e16a3dc3314479592dc9946d5770a844968a9",
        ("1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",),
    ),
    "em-c-cifar10": (
        "bad10bd56d5cc140f7e01e5f36ea048ba74087ff80cdae5f6fee50f6cf0945cf",
        ("84ffe8c14bc5017c3d910d29eadef53ac4b7b14dd305949c2a1e8ab34961d92d",),
    ),
    "cifar10-s-cpu": (
        "b1b91758d902c4c91a2cb2596b14284297db37512353cf04ee6a2178ab108493",
        (
            "c03e5958b14454fbfa29a35b2588c1953a176d2e07c245d9a87624ce426b9109",
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
        ),
    ),
    "em-cifar10-cpu": (
        "ec7d33526011b3ac775bce093e14443a24b252254e5fecdda5108d7a49a5c16d",
        ("c03e5958b14454fbfa29a35b2588c1953a176d2e07c245d9a87624ce426b9109",),
    ),
    "cifar10-s-small": (
        "bcd4973cae81570458e0496a66f8faace88ef6eba5512fcd4e99bfb361c9dff6",
        (
            "2396e5b4a5acdd01d3253fd80581878f1f8735308453a0dfb3f682de4ee43466",
            "3e4a69b63aec07f90380dc9b0bcc643ad695e1325183e949cf7329c58b47a680",
        ),
    ),
    "em-cifar10-small": (
        "d1651564985b3cb55b5729178d254910bef8f6230b603fbc2d1b6f1c227912b3",
        ("2396e5b4a5acdd01d3253fd80581878f1f8735308453a0dfb3f682de4ee43466",),
    ),
    "em-c-cifar10-small": (
        "f7415c53c37e0ae7031fd04594c5f71704dbcbfb974c281e850263149d4ad774",
        ("1876b045fba3be408f418507b84aa13f7e53eee893be7184580c4093e737ef56",),
    ),
    "em-cifar100": (
        "7b404538d379cdd3f8b3a91be938e8c40e735be4b4deec51dcac5db972edb596",
        ("a809eb2e29b16bb4654dc6870588a69ce74429036d483168c357569f8c7d1e68",),
    ),
    "em-c-cifar100": (
        "ab8f204b4ebb9539e4a6f85b8005a9155bd4389d8c3e8d4fb0c281090f89243e",
        ("0d218a710e699d8f38401dc958df68a5c525c62358e1ecddbf12495242ce6ae4",),
    ),
    "em-svhn": (
        "1a0f00f534da65a5cd3c60592696371588980713a4bbcb4280f65f51b1cc08b5",
        ("e2362292ee9c3a727f51eb38661d9ec4eee8cc7a3f03a4c71dde2e57e39391d8",),
    ),
    "em-c-svhn": (
        "83fe72712a7016e585c2717188d500f10dec15ea94e4736e14e988984effe499",
        ("2c948f4297d84bf43faec2b23e9e17804939ab7634cb6da9be10e63dcaa8fcf5",),
    ),
    "rem-cifar10": (
        "5c24cd698cc917fe2de67562fa4f061f1703eaadb701e696006d3d58c6f2d2e8",
        ("447f0a9ee420b5f84f20439cc5b0dc3b77e6e4a5d84f93db05d44821640d81af",),
    ),
    "rem-cifar100": (
        "343e14c0744de1b9776d710971658f8e876f34a274fb9b07becf1c432575eed5",
        ("2d30ed7a7b39c9948c2a887f9c189c121649817563e95dd4ce3c090ac16dad04",),
    ),
    "rem-svhn": (
        "0dddbca1b456a534cf40e7a7c8e3b4598d4c29f81a845c606e4f470177c6cace",
        ("547d157d77b620b9690613ae99b1d4db78e18915e51adaa8987814e6a1002343",),
    ),
    "rem-cifar10-small": (
        "42f9adf6b622a1224f5d73830cb17b4a2ef4186aa81c6a24ecd90ed8e8bb8b93",
        ("4586af31b7c3b21fa921bfcb1142ebcfe4e03778256a51d8a886f7a80bc9e3fc",),
    ),
    "bait-cifar10": (
        "395fc5eb7c10c87ef7b2ad627b7290991ed7216a132b39c5a521eb192e06a576",
        ("310fe8a24e13a234e24b6add7fbda26e629bd44396db03ad6bd1efc6fe121354",),
    ),
    "bait-cifar10-small": (
        "9e621f2088cb1709ec7d4d2641275beeaf957cdbe8b6b7a52916ab5cf7988cdb",
        ("3431f6b9deee89221b0d4b16761e18da1c198d9d711a32e174024a416fcc40c0",),
    ),
    "bait-cifar10-small-imagenet": (
        "3f8919bdd6437ca2002f35d430c4e47bf27a2f5bc91d35d6460e588ebcd6f8ab",
        ("4391c6e67b79c22cf7f819136e0a276812204abe9df5839ba9fc74062c87c6f1",),
    ),
    "uc-cifar10": (
        "1bde5533f353c11e3420375b656441404920e588a84c08406a24a85e11afb314",
        ("de88804402884d09d0ec96bb3cbb938b45e1a00aa42d046c2fdf8dd2034f559f",),
    ),
    "uc-cifar10-small": (
        "fb4b74a1ae29dacf9afcc0a41565c185e0d06a644124014f91492b1e747a35dd",
        ("3b50991244906309a8d425dbf9684639266a2469d14b13a7341f409685e814a2",),
    ),
    "uc-pets": (
        "ed68febd4dba8b14b8cc97a687b25c8c1737047fe564f2e7999891f944f46c1f",
        ("36a7c7abe053d936bd4e3be68b530e358bbc0437b3417134ef826ba9d7bf9853",),
    ),
    "uc-clip-pets": (
        "372b2f2a188739bc8c032a55bead4b4970c55044dcaa27064d9a9ce6a316928c",
        ("51797789fa502673d43c5ade4ef806c63b9b6b46c65d14c46f566a170027f058",),
    ),
    "ops-cifar10": (
        "b3e55073272f4923b7d6b19efaf76d9ce3340591852f9a70065e4048c47fb683",
        ("f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",),
    ),
    "ops-cifar100": (
        "85aecee3ea6bdb9d27d273aae41d26ebc451d43d8767fb024617545c52182644",
        ("dcc2098e98bc67e724db935170ac1b30cb2bc1eaaa53f7340e9940f62a015347",),
    ),
    "ops-svhn": (
        "91f6c363263ddf4b35545b2b788161eb2ba59e6fb537820930b293c10b6d6150",
        ("05005d0c9886d10d338a59c0250b901634fd0ddb6582bb55086d8b904a2bbf36",),
    ),
    "ops-cifar10-k2": (
        "b04733439527b21f5676205500a8b645e3a3b563f6599b3084dd0d434132c0b9",
        ("4285ca29ba23013abe1c2f06671698454f0b4d4b7ce6d9cf2fb8289d3ef5aa74",),
    ),
    "ops-cifar10-k3": (
        "d4deffebf2a242e3a54c317c1f0c4ab11b4deaf66c21fdd785470926402bb5ea",
        ("0deed04b7740b0172b4941699bce0ba1514a6648b18b792b2faa61b2aa229073",),
    ),
    "ops-cifar10-k4": (
        "c794375ed70dd85d50f412dc3c79c5318e19144578378573606f319a1d3b0395",
        ("2ae6c5f8d3699b5d7faad90e042e81f102149bb991af835c58e5cb3089829b86",),
    ),
    "ops-var-cifar10": (
        "849e66b86ac71c6bc02a224a57a547a1219e6b092bdba7158ff648e66a67506a",
        ("9b13bfbced7bef85f278037bc6286595aaefb1667bdc7dddb4d9c3bcf7400778",),
    ),
    "ops-position-cifar10": (
        "9ad66a4b37d2f8b61e677152860bab60b5b3fa7c53866e6b087fb7638e4bcdc8",
        ("d3143341566b260a72a51a805690da64c295904603ae03ef20e0ec05dee780e8",),
    ),
    "ops-color-cifar10": (
        "8e660d183df35c89d31b478aa49abe795417971d24bd20c61caf2f6a0e91f2e1",
        ("5dfbf2211394141d3c166f297df778bb25116d9b3caf95ccb10a9953652c70ad",),
    ),
    "randpix-cifar10": (
        "11b9a913f1efbe88a34186e2a9cecd7661805bae00e3b6b296b9d317f5c64644",
        ("f1273658f53c66b0fb451b5a57b224fbdf6dfc3f8fb5028228b76bde25f4f255",),
    ),
    "ops-search1pct-cifar10": (
        "ca1e7d434047c459fa313e9808835979aa0745d1167e656875c81be7ce730621",
        ("7636ffdb2355e589e47ac6fb315f60a9bf0cdc8ea9c877ecde01560c489caf9d",),
    ),
    "ops-search10pct-cifar10": (
        "0f33b526d2845715418a4efa76c9b8af958612a7c739707fe21dc438f3a28086",
        ("c378616ec19f7a318d9328aac8c73485b05e96857c0bb37f2fe3c2e0a55018d6",),
    ),
    "ops-search1pct-noisy-cifar10": (
        "5e7c4491f4e76a6a97ff62b5d38faf91d7fd23f04ba186b0f918d819e970020c",
        ("fb0fe2201cfe7846f32ac445b3d05835fb72467b8171d265e052731fccd551c5",),
    ),
    "ops-search10pct-noisy-cifar10": (
        "2536dd5047bb13edf33e74a705022136173913cd640feaaf91f7643c599c3662",
        ("b48bf50a81b3067b39b79bb63827d71dec8b04c8383f99161cd4d7ca78616b8d",),
    ),
    "ops-imagenet100": (
        "7ea247e7d013be0628c336e5593ac2e59d4f94708c6f6483212106df7056c45f",
        ("ac044b88b793fb904d7a71d4269f5b7d0960f1dcaf42df81302ae60fb1537ce2",),
    ),
    "ops-imagenet1k": (
        "9b23226dbb48e632369f0a574c38a547f7cfc4ba45b9f908ea41546cce08c782",
        ("dc8a1e58651007db155aa51e93b4b1598f367bb14706b7dc6cf90575e2cdc1df",),
    ),
    "tap-cifar10": (
        "a3d652fb595e8d9012b1ec0a38df12633594ae2fb879c591ab5730ac41c139e3",
        ("3acba44fdfe58b6cbd6da0ad167f65962066d77ff417c131575ee88e7b7a2337",),
    ),
    "tap-cifar100": (
        "6b0423a7a5695f36da9466299b22a66a1c27dce0083a4c11d173f6a7fc08f850",
        ("b41321fd62b1dbd93bc41ed9b5766eb7d0c15dd7725e009a4f44eeb24bbb072c",),
    ),
    "tap-svhn": (
        "8ae3de838c634d65c401a3b3f00da0a2cf3760505ce2aebb1ad4ea3fa98e00ae",
        ("a4c1fee3c702edbdff947297e0ea18a1a988a47701e6c976347ecd4fd15d0371",),
    ),
    "tap-cifar10-start1": (
        "fc3976ab29666df3e780e07eed3592459dee29b9e0ca0b4f6e9b4ff11a7d1a2b",
        ("0c46c65b358ec81ab987d7675810a5122fac7ab8cb432812cbff616f9bbf3bad",),
    ),
    "tap-cifar10-small": (
        "20753af2fda787e97768cb57cdcc78048ec59ec836e07600db90b3acf0e97be3",
        ("cc5e7f7b52bb0f62530a31c7e7af70b09991959a92a1e574a30e02269cda527a",),
    ),
    "emaxn-cifar10": (
        "9d4688a2e81ab95ef63e80726a6132048e8bcc70b3b2cb1554f7117abb735da6",
        ("8e011c95e34c4d43ee6ef63991bb1ebfcb05db20d3520af4d94fda856d58ac8f",),
    ),
    "emaxn-c-cifar10": (
        "df4453a4b31e66102588e819586155da539000acc16b52f574418a382036e4a4",
        ("86c76a7ac2e8a1b885bd20d953caa91ab4da536301f4876a2e9dcd7eddc8b963",),
    ),
    "emaxn-cifar10-small": (
        "87b1caa5882e6c445fff83919f0c73739bfb56a0959cd9c66a3e930e28a97993",
        ("7be7702ed6049090e87f93aaf73f6e381fb07b7d34e93c27726eb1309bc905b8",),
    ),
    "emaxn-c-cifar10-small": (
        "d6c848ee0afa5e9c5b78f030f0c3906b61d08a79f37962ce302ca8489f8adc6e",
        ("d26a7ce2c2aa55b8cdb56c4aaf92b1157aa50d4e16314a8013d03d0b153c8b06",),
    ),
    "dc-cifar10": (
        "8f730f1389f9a028bad37ae21f96ac0d3543260adf2219de3be2b49cd444799d",
        ("474876980c7d976a5ac69196cf47b5f3cc1bb08096b2a0c6ea69d5817e3ef7ea",),
    ),
    "dc-cifar10-small": (
        "c26183e084be3e35e3d8d00469b6ac158055c11a7eca9e7a9bdb242b065a3a7c",
        ("6dfcf819d648b020f80bc0f5e73b1810d003ead5bfe7aa0214431819570fe782",),
    ),
    "lsp-cifar10": (
        "b044dc6e67f7363640d3baa53bd20634dcadbf5edc3f52b3a30b88ec17841eb2",
        ("c35883475f19ef078b30b1871184ad64e6f5a1c23a6460e3c3a8628ae64593b7",),
    ),
    "lsp-cifar100": (
        "debf6515d01dfb91a71348b83fb18f53d1b86550c8a60158297091cb00b3a583",
        ("591b571840e43ee080469873737d298bfae6507ab6bc5ac037a831993951b0fd",),
    ),
    "lsp-svhn": (
        "fae16b3e0d8a0672fd4afc0d210073e700471ac92948c39895409ed20f47029c",
        ("55966bde9802d5a96f84ca8010945a38bcd7c0dc611862c8ca653f76e33e0d47",),
    ),
    "synper-pets": (
        "fdeae3ea036cbe7d43c4bafbc4ef8879e96d2f15d6c03fbf1ac4539f34c77983",
        ("d27ef3a6eca81a5e1c15722fb8051d46fc261e2dc233f92bb7d555b3607bdeb2",),
    ),
    "ar-cifar10": (
        "e07e3e3a6dd7c980b26e240496af4ff552aeb76af69306126c35b46d731c4be4",
        ("c7382680faecf66b4faaed83b9a1064147a25965882f9e4ebd29c28796474bc4",),
    ),
    "convolution-cifar10": (
        "91ee25eae5d44ac050f1bf034741eef9b73ec4efa12bd11240a733ac8a2f92c7",
        ("f5ccaa21b0ac990d3a8ed86095533108babb45a33866b0455989e0176529b3bb",),
    ),
    "gray-ops-cifar10": (
        "3e9ec0ddc16d1bc0583ca6adcd2401922ab3961f3f22ef50fea958234c739c8c",
        (
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "545a4b47e2725fdd4065769b0d6ca11de6ebd5d5fb2f57ee25a51e81d0699b31",
        ),
    ),
    "jpeg-ops-cifar10": (
        "b0f23a1cb7b7e24734541757bf0dbc7381f81098e53101f240cc0cac0fd8a080",
        (
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "32d4ccd92e4939c954abee10bb57588c04e9177b87010e6e109d81df48e3c7a2",
        ),
    ),
    "bdr-ops-cifar10": (
        "40592c750b0bbc92a5c7cb6c0dfc047ee5c2f87df4c897c8ce1e84c34d41bb4c",
        (
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "604a1baa49a698ab59c236dabaaec9b334d36d086020c5356fcb1a55471d6341",
        ),
    ),
    "median3-ops-cifar10": (
        "4c195b01bc88b017a7da8b21b1d2d4938630f382fd535c39a91e577bb76c9631",
        (
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "b46081cb7fc2692acea7f0e5748d237021a26789ab0881488ac68dec1f55e386",
        ),
    ),
    "gray-cifar10-s": (
        "92bea866a84d347a769c5d66451bae804d995112bef876962e7345b58109b731",
        (
            "1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "e53d27a7c322a71fedfcd221d445ca4a3982479ab85abe063d38812374a9e677",
        ),
    ),
    "jpeg-cifar10-s": (
        "513ad88c17280106397e39b989d966b964afd4d679f577d377d9cb7f94fd8266",
        (
            "1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",
            "f68dc0538d58dbf95853e9508de2c1f15554abb8c6bff9b68668014cea4bf506",
            "2afc4530465eeb0b5a2b06aa1ee925ef3d6cc90f067a8bf641fa666ce6102df0",
        ),
    ),
    "gray-em-cifar10": (
        "ca830953e9e1317d187fbc5e23d9ed69c5d3f4d9fc5671ea3ddb0efecb660fe0",
        (
            "1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",
            "067eaec7bf56dfc23ee10496e9c22e50298f5c8d149177300f35461f2d4c752e",
        ),
    ),
    "jpeg-em-cifar10": (
        "bfb3fcd44224fb3274f23f0add6db4e3049cffdff11588d262e367bf8f402172",
        (
            "1fa90e40a63d61e44bb4cfd782d0565ad3050e3de872a1f708652f42cce9b84f",
            "3a6cca9af5b2bd2557590833fa902394ab6e19432250b2c1c0c321004fc853ec",
        ),
    ),
    "gray-tap-cifar10": (
        "0a3fdc3fba064be542f01ce9df7f1517410811e1cb56ac0f08d7b56d037df4d2",
        (
            "3acba44fdfe58b6cbd6da0ad167f65962066d77ff417c131575ee88e7b7a2337",
            "a2067183cc21eaf71bd61c19a5abe284f5f21ef81d82819a52de09b9f0f27224",
        ),
    ),
    "jpeg-tap-cifar10": (
        "298e61684172b05c551d1b4e527a71157d16078f9327a6947663d39f80dc02c3",
        (
            "3acba44fdfe58b6cbd6da0ad167f65962066d77ff417c131575ee88e7b7a2337",
            "ed093e9413aa32d2dad8d98fc817025611bc9e89ab72d681defd11c287c0ddfe",
        ),
    ),
    "gray-lsp-cifar10": (
        "554545ed1d1089400be6ae07d39175933ba107ce653245c1a4f8832759067de2",
        (
            "c35883475f19ef078b30b1871184ad64e6f5a1c23a6460e3c3a8628ae64593b7",
            "6631f250e15d7d89bee1d23612b75a5d548373e179333492f518412e1e978d7e",
        ),
    ),
    "jpeg-lsp-cifar10": (
        "e4b31727845d4e6f2055e60ed79bd7ac4cb9d1acc66417eeddec0e625cbed619",
        (
            "c35883475f19ef078b30b1871184ad64e6f5a1c23a6460e3c3a8628ae64593b7",
            "6c4daf3431463d1942a4c3dc65b342cce4467de38c2c459bd4451af92f80f399",
        ),
    ),
    "imported-cifar10": (
        "2661b79c41a1c79f552829db3a7946014dd5e01963c2153b29af3df90c2da752",
        ("c453dbc6eff21f89244e5b4cfe06f53204231b86460ee5816f60b8b55d0e2a91",),
    ),
    "imported-cifar100": (
        "1509a088395f2515e0c17eb65be0a74d51f9f9b3edf79d01b8e7cd3dd6677d79",
        ("21582be39a68e9b46c8f97beacb59bc7f5ba8fa0441c665675caf1093ae23b66",),
    ),
    "imported-svhn": (
        "f1c7a3deef60d676544a71b36c84646f2da3cdfd18516b15bd5dff70bb596718",
        ("64a5edbbc0ac556fe0ae7f92ec328f39253e02722ab7091ab114ded8bb5fa3d9",),
    ),
    "ops": (
        "27c3039bf1b27044b7adf9c5ee9a486ba89b7c55a3b5752efb2ee1c60a5452d0",
        ("e15f54403514bca092986e93f174df3ab5277708a5418c04d73f1273b2f55e84",),
    ),
    "lsp": (
        "71bb52036dacd33762e78c3957364f4494035710d4bc5dd1cd1bd3fdb234eedb",
        ("aec3df5aeca10a743f5a27c3adcfdd9f700ed3784311ad912b83d8e4cddb9e17",),
    ),
    "uc": (
        "326e2a0ab68520e8ac0fb94e3ae97c28f76eef5ba260ca6e9d9767913d08a101",
        ("7d0e751560276f908fda6f3cdf24d405e51bf5ecd6be686698bfddab7f13b762",),
    ),
    "imported": (
        "1e7129e08f6fd8deed2849d6cae2cc1cdbefdc805f5dbe1003bf897e9cf3777a",
        ("d14420758740b642e3834532eea234799df151cb49e22557adf5b965cf175131",),
    ),
}
"""The digest of every recipe, and those of its crafts."""

EXACT: dict[str, str] = {
    "ops-digits": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "ops-cifar10": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "ops-cifar100": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "ops-svhn": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "ops-cifar10-k2": "4e1571d5cab64efa35f1b7b48abe5f7d76bf260e1c4f4d01f3ed52eef5f4e220",
    "ops-cifar10-k3": "fbd50829ff4e7ea5f5b4a11c34b7988a07c55de9f4fc0c0b3c3ca2f2cca1f82c",
    "ops-cifar10-k4": "0cf37ba14f3956feec7163f1724b69717cb44e74810c702618a1083c812cd687",
    "ops-var-cifar10": "da593f3df73b9e9045db780c9dbf2dd3467d2d1229938efdbcb25eb79c312a9a",
    "ops-position-cifar10": "467f350edbd1d509c3073991dc8a7df70851441e653b286e9cdd86b28fa982d2",
    "ops-color-cifar10": "937841f6a583163e8b231ab3b818da8390eaa02fb6fe1f3e1346f401d45a0ec9",
    "randpix-cifar10": "c49356c01137d78002ca6a66aa20fdf911ee0f0491220c0edf7fea32b90990bb",
    "ops-search1pct-cifar10": "3ba6e8d335195331f9008b95f4b8b343a9cdef5c1b206e35f414751393c1236e",
    "ops-search10pct-cifar10": "576aa1b4e8e05e9ce80a66b6dee5483cf63189145e726c5a20f7fcb607cc408e",
    "ops-search1pct-noisy-cifar10": "c5de9cbbe9fe87256381eab815090facea625c5725b724daf20068a0aa7aadcc",
    "ops-search10pct-noisy-cifar10": "a9500a9ab01e3f0c00ecc79d3e831c38aa6bfa78b37623cfd783d5601f4387e1",
    "ops-imagenet100": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "ops-imagenet1k": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "lsp-cifar10": "5ef6a3ad86ce3d9471c517d2a814f312817ae9f74b29f84a48138d2296b9b802",
    "lsp-cifar100": "5ef6a3ad86ce3d9471c517d2a814f312817ae9f74b29f84a48138d2296b9b802",
    "lsp-svhn": "5ef6a3ad86ce3d9471c517d2a814f312817ae9f74b29f84a48138d2296b9b802",
    "ar-cifar10": "59dc44d5dcee54bb2887769046f07ba3909d285162a2c0abcef5927e3c8c9c48",
    "convolution-cifar10": "36847211ab54f97e100abf01b06458a645b91a388561201888d9ff204048d9ec",
    "ops": "49e4d2624db4f61d011f7b769478a15452787fc417636de9d92b9287d05a1b1a",
    "lsp": "005efa39fcd918496ac600bbdbbff97b39e3b37dfb70710a98ee54dea771c975",
}
"""Perturbations of recipes that repeat anywhere, on the images of ``small_split``."""
OPS_DIGITS = "45614f8a0ac94d60699c80575ca157f671010c4b4ce2cb30c17cec2fbdb8cba8"


@pytest.mark.parametrize("name", RECIPES)
def test_identity_of_a_recipe_and_of_its_crafts_changes_only_on_purpose(name: str) -> None:
    """A new recipe digest means a new version of a published dataset: see Recipe.version.

    By the craft digests, finished crafts and saved perturbations are found again.
    """
    assert (RECIPES[name].digest, RECIPES[name].craft_digests) == CATALOGUE[name]


def test_no_recipe_of_the_catalogue_is_lost() -> None:
    assert list(CATALOGUE) == list(RECIPES)


def small_split(num_classes: int = 10, per_class: int = 100, size: int = 32) -> Split:
    images, labels = make_images(num_classes, per_class, size)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("train", images, labels, digests)


def digest_of(methods: tuple[Method, ...], split: Split, **context: Any) -> str:
    """Of the layers that methods make of the images with seed 0."""
    usual: dict[str, Any] = {"seed": Seed(0), "reporter": Reporter(silent=True)}
    num_classes = len(np.unique(split.labels))
    crafted = [method.generate(split, Context(num_classes=num_classes, **usual, **context)) for method in methods]
    layers = tuple(layer for each in crafted for layer in each.layers)
    return Perturbation(layers=layers, source_digest=split.digest).digest


def test_every_exact_recipe_is_pinned() -> None:
    exact = [
        name
        for name, recipe in RECIPES.items()
        if all(method.repeats == "exact" and not method.unsettled for method in recipe.methods)
    ]
    assert list(EXACT) == exact


@pytest.mark.parametrize("name", EXACT)
def test_perturbation_of_an_exact_recipe_on_small_images_changes_only_on_purpose(name: str) -> None:
    assert digest_of(RECIPES[name].methods, small_split()) == EXACT[name]


def test_perturbation_of_ops_digits_changes_only_on_purpose(built_digits: Path) -> None:
    manifest = json.loads((built_digits / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["perturbation_digest"] == OPS_DIGITS
